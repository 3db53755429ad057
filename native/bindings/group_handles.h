// How sinks and sources of groups cross JavaScript on their way from who made them to the pager: as externals that
// nobody in JavaScript can look into.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "core/failure.h"
#include "snapshot/group_sink.h"
#include "snapshot/group_source.h"

namespace vivarium {

// Tells the externals of one type from all others.
template <typename Interface>
struct GroupHandle {
  static constexpr uint64_t kMark = sizeof(Interface*) == 0 ? 0 : 0x5e1f7a0cb2d94e63;
  uint64_t mark = kMark;
  const void* type;
  std::shared_ptr<Interface> object;

  static const void* typeOf() {
    static const char type = 0;
    return &type;
  }
};

template <typename Interface>
Napi::Value makeGroupHandle(Napi::Env env, std::shared_ptr<Interface> object) {
  using Handle = GroupHandle<Interface>;
  auto handle = std::make_unique<Handle>();
  handle->type = Handle::typeOf();
  handle->object = std::move(object);
  return Napi::External<Handle>::New(env, handle.release(), [](Napi::Env, Handle* made) { delete made; });
}

template <typename Interface>
std::shared_ptr<Interface> groupHandleArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  using Handle = GroupHandle<Interface>;
  if (info.Length() <= index || !info[index].IsExternal()) throwType(std::string(name) + ": a native handle is wanted");
  const Handle* handle = info[index].As<Napi::External<Handle>>().Data();
  if (handle->mark != Handle::kMark || handle->type != Handle::typeOf()) {
    throwType(std::string(name) + ": a handle of another kind");
  }
  return handle->object;
}

}  // namespace vivarium

// Arguments in, errors out. close() lets go of it here; the store goes with the last memory that stands on it.
#include "bindings/group_store_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_handles.h"
#include "memory/guest_memory.h"

namespace vivarium {

Napi::Function GroupStoreWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceMethod<&GroupStoreWrap::status>("status"),
                         InstanceMethod<&GroupStoreWrap::close>("close"),
                     });
}

GroupStoreWrap::GroupStoreWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GroupStoreWrap>(info) {
  guarded(info, [&] {
    const auto source = groupHandleArgument<GroupSource>(info, 0, "source");
    const uint64_t size = integerArgument(info, 1, "sizeBytes", GuestMemory::kMaxBytes);
    if (size == 0 || size % GuestMemory::kPageBytes != 0) throwRange("sizeBytes: not a multiple of 4096 above 0");
    store_ = std::make_shared<GroupStore>(Environment::of(info.Env()).counters, *source, size);
    setTag(info.Env(), info.This(), kTag);
  });
}

const std::shared_ptr<GroupStore>& GroupStoreWrap::store() const {
  if (store_ == nullptr) throwClosed("store of clones");
  return store_;
}

Napi::Value GroupStoreWrap::status(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const GroupStore::Status status = store()->status();
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("groups", static_cast<double>(status.groups));
    object.Set("held", static_cast<double>(status.held));
    object.Set("taken", static_cast<double>(status.taken));
    object.Set("isSealed", status.sealed);
    return object;
  });
}

Napi::Value GroupStoreWrap::close(const Napi::CallbackInfo& info) {
  store_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

// NativeMemoryGroups of lib/kvm/native-pager.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "snapshot/memory_groups.h"

namespace vivarium {

class MemoryGroupsWrap : public Napi::ObjectWrap<MemoryGroupsWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit MemoryGroupsWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value sink(const Napi::CallbackInfo& info);
  Napi::Value source(const Napi::CallbackInfo& info);
  Napi::Value setRoom(const Napi::CallbackInfo& info);
  Napi::Value failAt(const Napi::CallbackInfo& info);
  Napi::Value letGo(const Napi::CallbackInfo& info);
  Napi::Value offers(const Napi::CallbackInfo& info);

  std::shared_ptr<MemoryGroups> groups_;
};

}  // namespace vivarium

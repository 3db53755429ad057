// NativeGroupStore of lib/kvm/native-pager.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "memory/group_store.h"

namespace vivarium {

class GroupStoreWrap : public Napi::ObjectWrap<GroupStoreWrap> {
 public:
  static constexpr napi_type_tag kTag{0x6b1f0e9a52c74d18, 0x8d35c0a7f19e2b64};
  static constexpr const char* kClassName = "GroupStore";
  static Napi::Function define(Napi::Env env);
  explicit GroupStoreWrap(const Napi::CallbackInfo& info);
  // Throws Failure kClosed.
  const std::shared_ptr<GroupStore>& store() const;

 private:
  Napi::Value status(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<GroupStore> store_;  // null after close()
};

}  // namespace vivarium

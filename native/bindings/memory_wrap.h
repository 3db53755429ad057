// NativeMemory of lib/kvm/native.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "bindings/views.h"
#include "memory/guest_memory.h"

namespace vivarium {

class MemoryWrap : public Napi::ObjectWrap<MemoryWrap> {
 public:
  static constexpr napi_type_tag kTag{0x3a7d1c55c0e948b2, 0xa4e0f5d3b7724f02};
  static constexpr const char* kClassName = "Memory";
  static Napi::Function define(Napi::Env env);
  explicit MemoryWrap(const Napi::CallbackInfo& info);
  // Throws Failure kClosed.
  const GuestMemory& memory() const;

 private:
  Napi::Value sizeBytes(const Napi::CallbackInfo& info);
  Napi::Value fd(const Napi::CallbackInfo& info);
  Napi::Value view(const Napi::CallbackInfo& info);
  Napi::Value dirtyBitmap(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::unique_ptr<GuestMemory> memory_;
  Views views_;
};

}  // namespace vivarium

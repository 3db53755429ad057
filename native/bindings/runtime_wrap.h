// NativeRuntime of lib/kvm/native.ts: the queue, the doorbell, watched eventfds, and the live counts.
#pragma once

#include "bindings/napi.h"

namespace vivarium {

class RuntimeWrap : public Napi::ObjectWrap<RuntimeWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit RuntimeWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value next(const Napi::CallbackInfo& info);
  Napi::Value setVcpuSpin(const Napi::CallbackInfo& info);
  Napi::Value watch(const Napi::CallbackInfo& info);
  Napi::Value unwatch(const Napi::CallbackInfo& info);
  Napi::Value ref(const Napi::CallbackInfo& info);
  Napi::Value unref(const Napi::CallbackInfo& info);
  Napi::Value counts(const Napi::CallbackInfo& info);
};

}  // namespace vivarium

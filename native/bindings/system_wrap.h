// NativeSystem of lib/kvm/native.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "kvm/system.h"

namespace vivarium {

class SystemWrap : public Napi::ObjectWrap<SystemWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit SystemWrap(const Napi::CallbackInfo& info);

 private:
  const System& system() const;
  Napi::Value apiVersion(const Napi::CallbackInfo& info);
  Napi::Value checkExtension(const Napi::CallbackInfo& info);
  Napi::Value vcpuMmapSize(const Napi::CallbackInfo& info);
  Napi::Value supportedCpuid(const Napi::CallbackInfo& info);
  Napi::Value emulatedCpuid(const Napi::CallbackInfo& info);
  Napi::Value msrIndices(const Napi::CallbackInfo& info);
  Napi::Value featureMsrIndices(const Napi::CallbackInfo& info);
  Napi::Value readFeatureMsrs(const Napi::CallbackInfo& info);
  Napi::Value createVm(const Napi::CallbackInfo& info);
  Napi::Value createVmAsync(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<System> system_;
};

}  // namespace vivarium

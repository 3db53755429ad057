// NativeVcpu of lib/kvm/native.ts. It keeps its VM's object alive, never the other way round.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "bindings/vm_wrap.h"
#include "thread/vcpu_runner.h"

namespace vivarium {

class VcpuWrap : public Napi::ObjectWrap<VcpuWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, std::shared_ptr<VmShared> shared, std::shared_ptr<VcpuRunner> runner,
                            Napi::Value vm);
  explicit VcpuWrap(const Napi::CallbackInfo& info);
  ~VcpuWrap() override;
  // The VM was closed.
  void letGo() { runner_.reset(); }

 private:
  // Throws Failure kClosed.
  VcpuRunner& runner() const;
  // The same, and Failure kState while the vCPU runs.
  const Vcpu& reachable() const;

  Napi::Value ioctl(const Napi::CallbackInfo& info);
  Napi::Value ioctlValue(const Napi::CallbackInfo& info);
  Napi::Value setCpuid(const Napi::CallbackInfo& info);
  Napi::Value getCpuid(const Napi::CallbackInfo& info);
  Napi::Value readMsrs(const Napi::CallbackInfo& info);
  Napi::Value writeMsrs(const Napi::CallbackInfo& info);
  Napi::Value getXsave(const Napi::CallbackInfo& info);
  Napi::Value setXsave(const Napi::CallbackInfo& info);
  Napi::Value getDeviceAttr(const Napi::CallbackInfo& info);
  Napi::Value setDeviceAttr(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value stat(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value park(const Napi::CallbackInfo& info);
  Napi::Value kick(const Napi::CallbackInfo& info);
  Napi::Value complete(const Napi::CallbackInfo& info);
  Napi::Value threadCpuNs(const Napi::CallbackInfo& info);
  Napi::Value threadId(const Napi::CallbackInfo& info);

  std::shared_ptr<VmShared> shared_;
  std::shared_ptr<VcpuRunner> runner_;  // null once closed
};

}  // namespace vivarium

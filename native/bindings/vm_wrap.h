// NativeVm of lib/kvm/native.ts. After close() nothing of the machine is held: each vCPU object is told to let go too.
#pragma once

#include <memory>
#include <set>

#include "bindings/napi.h"
#include "bindings/views.h"
#include "thread/machine.h"

namespace vivarium {

class PitWrap;
class VcpuWrap;

// What the objects of one VM share, on the JavaScript thread.
struct VmShared {
  VmShared(Napi::Env env, std::shared_ptr<Machine> machine_) : machine(std::move(machine_)), views(env) {}
  std::shared_ptr<Machine> machine;  // null once closed
  Views views;
  std::set<VcpuWrap*> vcpus;
  PitWrap* pit = nullptr;
};

class VmWrap : public Napi::ObjectWrap<VmWrap> {
 public:
  static constexpr napi_type_tag kTag{0x7c2a9e14d05b4f6e, 0x8d31b6f0a95e4f03};
  static constexpr const char* kClassName = "Vm";
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, std::shared_ptr<Machine> machine);
  explicit VmWrap(const Napi::CallbackInfo& info);
  // Throws Failure kClosed.
  const std::shared_ptr<VcpuGroup>& vcpus() const { return machine().vcpus(); }

 private:
  // Throws Failure kClosed.
  Machine& machine() const;
  // Takes the machine out of all objects, views detached, threads told to end.
  std::shared_ptr<Machine> letGo();

  Napi::Value ioctl(const Napi::CallbackInfo& info);
  Napi::Value ioctlValue(const Napi::CallbackInfo& info);
  Napi::Value checkExtension(const Napi::CallbackInfo& info);
  Napi::Value enableCap(const Napi::CallbackInfo& info);
  Napi::Value setMemorySlot(const Napi::CallbackInfo& info);
  Napi::Value setMemorySlotAsync(const Napi::CallbackInfo& info);
  Napi::Value setGsiRouting(const Napi::CallbackInfo& info);
  Napi::Value irqfd(const Napi::CallbackInfo& info);
  Napi::Value ioeventfd(const Napi::CallbackInfo& info);
  Napi::Value getDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value clearDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value drainCoalesced(const Napi::CallbackInfo& info);
  Napi::Value postedConsumed(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value createVcpu(const Napi::CallbackInfo& info);
  Napi::Value openPit(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value closeAsync(const Napi::CallbackInfo& info);

  std::shared_ptr<VmShared> shared_;
  // The machine between closeAsync() and its end, so that a close() after it waits.
  std::weak_ptr<Machine> closing_;
};

}  // namespace vivarium

// Arguments in, errors out.
#include "bindings/vm_wrap.h"

#include <linux/kvm.h>

#include <limits>
#include <optional>

#include "bindings/arguments.h"
#include "bindings/async_task.h"
#include "bindings/environment.h"
#include "bindings/event_fd_wrap.h"
#include "bindings/memory_wrap.h"
#include "bindings/pit_wrap.h"
#include "bindings/stats_object.h"
#include "bindings/vcpu_wrap.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxAddress = (uint64_t{1} << 53) - 1;

struct SlotArguments {
  uint32_t slot;
  uint32_t flags;
  uint64_t gpa;
  std::shared_ptr<Mapping> mapping;
  uint64_t offset;
  uint64_t sizeBytes;

  explicit SlotArguments(const Napi::CallbackInfo& info)
      : slot(u32Argument(info, 0, "slot")),
        flags(u32Argument(info, 1, "flags")),
        gpa(integerArgument(info, 2, "gpa", kMaxAddress)),
        offset(integerArgument(info, 4, "offset", kMaxAddress)),
        sizeBytes(integerArgument(info, 5, "sizeBytes", kMaxAddress)) {
    const GuestMemory& memory = wrapArgument<MemoryWrap>(info, 3, "memory")->memory();
    mapping = memory.mapping();
    if (offset > mapping->size() || sizeBytes > mapping->size() - offset) {
      throwRange("sizeBytes: the slot ends beyond the memory");
    }
    if (gpa % 4096 != 0 || offset % 4096 != 0 || sizeBytes % 4096 != 0) {
      throwRange("gpa, offset and sizeBytes: not multiples of 4096");
    }
  }
};

}  // namespace

Napi::Function VmWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceMethod<&VmWrap::ioctl>("ioctl"),
                         InstanceMethod<&VmWrap::ioctlValue>("ioctlValue"),
                         InstanceMethod<&VmWrap::checkExtension>("checkExtension"),
                         InstanceMethod<&VmWrap::enableCap>("enableCap"),
                         InstanceMethod<&VmWrap::setMemorySlot>("setMemorySlot"),
                         InstanceMethod<&VmWrap::setMemorySlotAsync>("setMemorySlotAsync"),
                         InstanceMethod<&VmWrap::setGsiRouting>("setGsiRouting"),
                         InstanceMethod<&VmWrap::irqfd>("irqfd"),
                         InstanceMethod<&VmWrap::ioeventfd>("ioeventfd"),
                         InstanceMethod<&VmWrap::getDirtyLog>("getDirtyLog"),
                         InstanceMethod<&VmWrap::clearDirtyLog>("clearDirtyLog"),
                         InstanceMethod<&VmWrap::drainCoalesced>("drainCoalesced"),
                         InstanceMethod<&VmWrap::postedConsumed>("postedConsumed"),
                         InstanceMethod<&VmWrap::stats>("stats"),
                         InstanceMethod<&VmWrap::createVcpu>("createVcpu"),
                         InstanceMethod<&VmWrap::openPit>("openPit"),
                         InstanceMethod<&VmWrap::close>("close"),
                         InstanceMethod<&VmWrap::closeAsync>("closeAsync"),
                     });
}

Napi::Value VmWrap::create(Napi::Env env, std::shared_ptr<Machine> machine) {
  Environment& environment = Environment::of(env);
  environment.addMachine(machine);
  auto shared = std::make_shared<VmShared>(env, std::move(machine));
  return environment.vmClass.New({Napi::External<std::shared_ptr<VmShared>>::New(env, &shared)});
}

VmWrap::VmWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<VmWrap>(info) {
  guarded(info, [&] {
    if (info.Length() != 1 || !info[0].IsExternal()) throwType("made by createVm() only");
    shared_ = *info[0].As<Napi::External<std::shared_ptr<VmShared>>>().Data();
    const PostedRing& posted = *shared_->machine->posted();
    Napi::Object self = info.This().As<Napi::Object>();
    const auto view = [&](const char* name, uint8_t* data, size_t length) {
      defineConstant(self, name, shared_->views.create(posted.memory(), data, length));
    };
    view("portFlags", posted.flags(), PostedRing::kPorts);
    view("portValues", posted.values(), PostedRing::kPorts);
    view("postedControl", posted.control(), PostedRing::kControlBytes);
    view("postedRing", posted.entries(), PostedRing::kEntriesBytes);
    view("readQueues", posted.queues(), PostedRing::kQueues * PostedRing::kQueueBytes);
    defineConstant(self, "sourceId", Napi::Number::New(info.Env(), posted.source()->id()));
    setTag(info.Env(), self, kTag);
  });
}

Machine& VmWrap::machine() const {
  if (shared_->machine == nullptr) throwClosed("vm");
  return *shared_->machine;
}

Napi::Value VmWrap::ioctl(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const std::string name = stringArgument(info, 0, "request");
    const StructIoctl* row = findStructIoctl(IoctlScope::kVm, name);
    if (row == nullptr) throwRange("request: '" + name + "' is no structure ioctl of a VM");
    StructBuffer buffer(info, 1, *row);
    self.vm()->structIoctl(*row, buffer.data());
    if (row->request == KVM_REGISTER_COALESCED_MMIO) self.zoneRegistered();
    return buffer.toArray(info.Env());
  });
}

Napi::Value VmWrap::ioctlValue(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Machine& self = machine();
    const std::string name = stringArgument(info, 0, "request");
    const ValueIoctl* row = findValueIoctl(IoctlScope::kVm, name);
    if (row == nullptr) throwRange("request: '" + name + "' is no value ioctl of a VM");
    const uint64_t argument = absent(info, 1) ? 0 : integerArgument(info, 1, "argument", kMaxAddress);
    return Napi::Number::New(info.Env(), self.vm()->valueIoctl(*row, argument));
  });
}

Napi::Value VmWrap::checkExtension(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto capability = integerArgument(info, 0, "capability", std::numeric_limits<int>::max());
    return Napi::Number::New(info.Env(), machine().vm()->checkExtension(static_cast<int>(capability)));
  });
}

Napi::Value VmWrap::enableCap(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    machine().vm()->enableCap(u32Argument(info, 0, "capability"), u32Argument(info, 1, "flags"),
                              u64ArrayArgument(info, 2, "args"));
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::setMemorySlot(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const SlotArguments slot(info);
    self.vm()->setMemorySlot(slot.slot, slot.flags, slot.gpa, slot.mapping, slot.offset, slot.sizeBytes);
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::setMemorySlotAsync(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    return runAsync(
        info.Env(), "KVM_SET_USER_MEMORY_REGION",
        [vm = self.vm(), slot = SlotArguments(info)] {
          vm->setMemorySlot(slot.slot, slot.flags, slot.gpa, slot.mapping, slot.offset, slot.sizeBytes);
        },
        [](Napi::Env env) { return env.Undefined(); });
  });
}

Napi::Value VmWrap::setGsiRouting(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    machine().vm()->setGsiRouting(bytesArgument(info, 0, "entries"));
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::irqfd(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const EventFd& eventFd = *wrapArgument<EventFdWrap>(info, 0, "eventFd")->eventFd();
    const uint32_t gsi = u32Argument(info, 1, "gsi");
    const uint32_t flags = u32Argument(info, 2, "flags");
    const EventFd* resample =
        absent(info, 3) ? nullptr : wrapArgument<EventFdWrap>(info, 3, "resample")->eventFd().get();
    self.vm()->irqfd(eventFd, gsi, flags, resample);
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::ioeventfd(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const EventFd& eventFd = *wrapArgument<EventFdWrap>(info, 0, "eventFd")->eventFd();
    const uint64_t address = integerArgument(info, 1, "address", kMaxAddress);
    const uint32_t length = static_cast<uint32_t>(integerArgument(info, 2, "length", 8));
    const uint32_t flags = u32Argument(info, 3, "flags");
    std::optional<uint64_t> datamatch;
    if (!absent(info, 4)) datamatch = bigintArgument(info, 4, "datamatch");
    self.vm()->ioeventfd(eventFd, address, length, flags, datamatch);
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::getDirtyLog(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const uint32_t slot = u32Argument(info, 0, "slot");
    const uint64_t sizeBytes = integerArgument(info, 1, "sizeBytes", kMaxAddress);
    return toBigUint64Array(info.Env(), self.vm()->getDirtyLog(slot, sizeBytes));
  });
}

Napi::Value VmWrap::clearDirtyLog(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const uint32_t slot = u32Argument(info, 0, "slot");
    const uint64_t firstPage = integerArgument(info, 1, "firstPage", kMaxAddress);
    const uint32_t pages = u32Argument(info, 2, "pages");
    self.vm()->clearDirtyLog(slot, firstPage, pages, u64ArrayArgument(info, 3, "bitmap"));
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::drainCoalesced(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    machine().posted()->drainWithoutWaiting();
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::postedConsumed(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    machine().posted()->wakeWaiters();
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::stats(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return statsObject(info.Env(), machine().vm()->statsFd()); });
}

Napi::Value VmWrap::createVcpu(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Machine& self = machine();
    const uint32_t id = u32Argument(info, 0, "id");
    auto runner = self.createVcpu(id, stringArgument(info, 1, "threadName"));
    return VcpuWrap::create(info.Env(), shared_, std::move(runner), info.This());
  });
}

Napi::Value VmWrap::openPit(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return PitWrap::create(info.Env(), shared_, machine().openPit(), info.This()); });
}

std::shared_ptr<Machine> VmWrap::letGo() {
  std::shared_ptr<Machine> machine = std::move(shared_->machine);
  if (machine == nullptr) return nullptr;
  machine->beginClose();
  for (VcpuWrap* vcpu : shared_->vcpus) vcpu->letGo();
  if (shared_->pit != nullptr) shared_->pit->letGo();
  shared_->views.detach();
  return machine;
}

Napi::Value VmWrap::close(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::shared_ptr<Machine> machine = letGo();
    if (machine == nullptr) machine = closing_.lock();
    if (machine != nullptr) machine->finishClose();
    return info.Env().Undefined();
  });
}

Napi::Value VmWrap::closeAsync(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::shared_ptr<Machine> machine = letGo();
    if (machine == nullptr) machine = closing_.lock();
    closing_ = machine;
    return runAsync(
        info.Env(), "vivarium close",
        [machine = std::move(machine)] {
          if (machine != nullptr) machine->finishClose();
        },
        [](Napi::Env env) { return env.Undefined(); });
  });
}

}  // namespace vivarium

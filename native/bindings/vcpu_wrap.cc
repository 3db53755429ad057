// Arguments in, errors out. Ioctls are refused while the vCPU runs: the kernel would make the event loop wait for it.
#include "bindings/vcpu_wrap.h"

#include <vector>

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/stats_object.h"
#include "kvm/lists.h"
#include "kvm/requests.h"

namespace vivarium {
namespace {

struct Birth {
  std::shared_ptr<VmShared> shared;
  std::shared_ptr<VcpuRunner> runner;
};

}  // namespace

Napi::Function VcpuWrap::define(Napi::Env env) {
  return DefineClass(env, "Vcpu",
                     {
                         InstanceMethod<&VcpuWrap::ioctl>("ioctl"),
                         InstanceMethod<&VcpuWrap::ioctlValue>("ioctlValue"),
                         InstanceMethod<&VcpuWrap::setCpuid>("setCpuid"),
                         InstanceMethod<&VcpuWrap::getCpuid>("getCpuid"),
                         InstanceMethod<&VcpuWrap::readMsrs>("readMsrs"),
                         InstanceMethod<&VcpuWrap::writeMsrs>("writeMsrs"),
                         InstanceMethod<&VcpuWrap::getXsave>("getXsave"),
                         InstanceMethod<&VcpuWrap::setXsave>("setXsave"),
                         InstanceMethod<&VcpuWrap::getDeviceAttr>("getDeviceAttr"),
                         InstanceMethod<&VcpuWrap::setDeviceAttr>("setDeviceAttr"),
                         InstanceMethod<&VcpuWrap::stats>("stats"),
                         InstanceMethod<&VcpuWrap::stat>("stat"),
                         InstanceMethod<&VcpuWrap::resume>("resume"),
                         InstanceMethod<&VcpuWrap::park>("park"),
                         InstanceMethod<&VcpuWrap::kick>("kick"),
                         InstanceMethod<&VcpuWrap::complete>("complete"),
                         InstanceMethod<&VcpuWrap::threadCpuNs>("threadCpuNs"),
                         InstanceAccessor<&VcpuWrap::threadId>("threadId"),
                     });
}

Napi::Value VcpuWrap::create(Napi::Env env, std::shared_ptr<VmShared> shared, std::shared_ptr<VcpuRunner> runner,
                             Napi::Value vm) {
  Birth birth{std::move(shared), std::move(runner)};
  return Environment::of(env).vcpuClass.New({Napi::External<Birth>::New(env, &birth), vm});
}

VcpuWrap::VcpuWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<VcpuWrap>(info) {
  guarded(info, [&] {
    if (info.Length() != 2 || !info[0].IsExternal()) throwType("made by createVcpu() only");
    const Birth* birth = info[0].As<Napi::External<Birth>>().Data();
    shared_ = birth->shared;
    runner_ = birth->runner;
    shared_->vcpus.insert(this);
    Napi::Object self = info.This().As<Napi::Object>();
    const auto& runMapping = runner_->vcpu().mapping();
    const auto& control = runner_->controlMemory();
    defineConstant(self, "run", shared_->views.create(runMapping, runMapping->data(), runMapping->size()));
    defineConstant(self, "control", shared_->views.create(control, control->data(), sizeof(VcpuControl)));
    defineConstant(self, "id", Napi::Number::New(info.Env(), runner_->vcpu().id()));
    defineConstant(self, "sourceId", Napi::Number::New(info.Env(), runner_->source()->id()));
    // A VM must not be collected while one of its vCPUs can still be used.
    self.DefineProperty(Napi::PropertyDescriptor::Value("vm", info[1], napi_default));
  });
}

VcpuWrap::~VcpuWrap() {
  if (shared_ != nullptr) shared_->vcpus.erase(this);
}

VcpuRunner& VcpuWrap::runner() const {
  if (runner_ == nullptr) throwClosed("vcpu");
  return *runner_;
}

const Vcpu& VcpuWrap::reachable() const {
  runner().checkReachable();
  return runner_->vcpu();
}

Napi::Value VcpuWrap::ioctl(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Vcpu& vcpu = reachable();
    const std::string name = stringArgument(info, 0, "request");
    const StructIoctl* row = findStructIoctl(IoctlScope::kVcpu, name);
    if (row == nullptr) throwRange("request: '" + name + "' is no structure ioctl of a vCPU");
    StructBuffer buffer(info, 1, *row);
    vcpu.structIoctl(*row, buffer.data());
    return buffer.toArray(info.Env());
  });
}

Napi::Value VcpuWrap::ioctlValue(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Vcpu& vcpu = reachable();
    const std::string name = stringArgument(info, 0, "request");
    const ValueIoctl* row = findValueIoctl(IoctlScope::kVcpu, name);
    if (row == nullptr) throwRange("request: '" + name + "' is no value ioctl of a vCPU");
    const uint64_t argument = absent(info, 1) ? 0 : integerArgument(info, 1, "argument", (uint64_t{1} << 53) - 1);
    return Napi::Number::New(info.Env(), vcpu.valueIoctl(*row, argument));
  });
}

Napi::Value VcpuWrap::setCpuid(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    writeCpuid(reachable().fd(), u32ArrayArgument(info, 0, "rows"));
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::getCpuid(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return toUint32Array(info.Env(), readCpuid(reachable().fd(), request::kGetCpuid2, "KVM_GET_CPUID2"));
  });
}

Napi::Value VcpuWrap::readMsrs(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return toBigUint64Array(info.Env(), vivarium::readMsrs(reachable().fd(), u32ArrayArgument(info, 0, "indices")));
  });
}

Napi::Value VcpuWrap::writeMsrs(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    vivarium::writeMsrs(reachable().fd(), u32ArrayArgument(info, 0, "indices"), u64ArrayArgument(info, 1, "values"));
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::getXsave(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Vcpu& vcpu = reachable();
    std::vector<uint8_t> bytes(vcpu.xsaveBytes(shared_->machine->vm()->fd()));
    vcpu.getXsave(bytes);
    return toUint8Array(info.Env(), bytes);
  });
}

Napi::Value VcpuWrap::setXsave(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Vcpu& vcpu = reachable();
    const auto bytes = bytesArgument(info, 0, "bytes");
    const size_t wanted = vcpu.xsaveBytes(shared_->machine->vm()->fd());
    if (bytes.size() != wanted) throwRange("bytes: " + std::to_string(wanted) + " bytes are wanted");
    vcpu.setXsave(bytes);
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::getDeviceAttr(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Vcpu& vcpu = reachable();
    const uint32_t group = u32Argument(info, 0, "group");
    return Napi::BigInt::New(info.Env(), vcpu.deviceAttr(group, u32Argument(info, 1, "attribute")));
  });
}

Napi::Value VcpuWrap::setDeviceAttr(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Vcpu& vcpu = reachable();
    const uint32_t group = u32Argument(info, 0, "group");
    const uint32_t attribute = u32Argument(info, 1, "attribute");
    vcpu.setDeviceAttr(group, attribute, bigintArgument(info, 2, "value"));
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::stats(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return statsObject(info.Env(), runner().vcpu().statsFd()); });
}

Napi::Value VcpuWrap::stat(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::optional<uint64_t> value = runner().vcpu().stat(stringArgument(info, 0, "name"));
    return value.has_value() ? Napi::BigInt::New(info.Env(), *value) : info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::resume(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    runner().resume();
    shared_->machine->runs();
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::park(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    runner().park();
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::kick(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    runner().kick();
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::complete(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    runner().complete();
    return info.Env().Undefined();
  });
}

Napi::Value VcpuWrap::threadCpuNs(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::BigInt::New(info.Env(), runner().threadCpuNs()); });
}

Napi::Value VcpuWrap::threadId(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), runner_ == nullptr ? 0 : runner_->threadId());
}

}  // namespace vivarium

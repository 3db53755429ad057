// Arguments in, errors out.
#include "bindings/system_wrap.h"

#include <limits>

#include "bindings/arguments.h"
#include "bindings/async_task.h"
#include "bindings/environment.h"
#include "bindings/vm_wrap.h"

namespace vivarium {

Napi::Function SystemWrap::define(Napi::Env env) {
  return DefineClass(env, "System",
                     {
                         InstanceMethod<&SystemWrap::apiVersion>("apiVersion"),
                         InstanceMethod<&SystemWrap::checkExtension>("checkExtension"),
                         InstanceMethod<&SystemWrap::vcpuMmapSize>("vcpuMmapSize"),
                         InstanceMethod<&SystemWrap::supportedCpuid>("supportedCpuid"),
                         InstanceMethod<&SystemWrap::emulatedCpuid>("emulatedCpuid"),
                         InstanceMethod<&SystemWrap::msrIndices>("msrIndices"),
                         InstanceMethod<&SystemWrap::featureMsrIndices>("featureMsrIndices"),
                         InstanceMethod<&SystemWrap::readFeatureMsrs>("readFeatureMsrs"),
                         InstanceMethod<&SystemWrap::createVm>("createVm"),
                         InstanceMethod<&SystemWrap::createVmAsync>("createVmAsync"),
                         InstanceMethod<&SystemWrap::close>("close"),
                     });
}

SystemWrap::SystemWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SystemWrap>(info) {
  guarded(info, [&] {
    system_ = std::make_shared<System>(Environment::of(info.Env()).counters, stringArgument(info, 0, "path"));
  });
}

const System& SystemWrap::system() const {
  if (system_ == nullptr) throwClosed("system");
  return *system_;
}

Napi::Value SystemWrap::apiVersion(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), system().apiVersion()); });
}

Napi::Value SystemWrap::checkExtension(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto capability = integerArgument(info, 0, "capability", std::numeric_limits<int>::max());
    return Napi::Number::New(info.Env(), system().checkExtension(static_cast<int>(capability)));
  });
}

Napi::Value SystemWrap::vcpuMmapSize(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), system().vcpuMmapSize()); });
}

Napi::Value SystemWrap::supportedCpuid(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return toUint32Array(info.Env(), system().supportedCpuid()); });
}

Napi::Value SystemWrap::emulatedCpuid(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return toUint32Array(info.Env(), system().emulatedCpuid()); });
}

Napi::Value SystemWrap::msrIndices(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return toUint32Array(info.Env(), system().msrIndices()); });
}

Napi::Value SystemWrap::featureMsrIndices(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return toUint32Array(info.Env(), system().featureMsrIndices()); });
}

Napi::Value SystemWrap::readFeatureMsrs(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return toBigUint64Array(info.Env(), system().readFeatureMsrs(u32ArrayArgument(info, 0, "indices")));
  });
}

Napi::Value SystemWrap::createVm(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Environment& environment = Environment::of(info.Env());
    const uint32_t type = u32Argument(info, 0, "type");
    const size_t mmapBytes = static_cast<size_t>(system().vcpuMmapSize());
    auto machine = std::make_shared<Machine>(environment.runtime, system().createVm(type), mmapBytes);
    return VmWrap::create(info.Env(), std::move(machine));
  });
}

Napi::Value SystemWrap::createVmAsync(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const uint32_t type = u32Argument(info, 0, "type");
    const size_t mmapBytes = static_cast<size_t>(system().vcpuMmapSize());
    const auto fd = std::make_shared<Fd>();
    return runAsync(
        info.Env(), "KVM_CREATE_VM", [system = system_, type, fd] { *fd = system->createVm(type); },
        [fd, mmapBytes](Napi::Env env) {
          return VmWrap::create(env,
                                std::make_shared<Machine>(Environment::of(env).runtime, std::move(*fd), mmapBytes));
        });
  });
}

Napi::Value SystemWrap::close(const Napi::CallbackInfo& info) {
  system_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

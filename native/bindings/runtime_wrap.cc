// Arguments in, errors out. The state is the environment's: this object has none of its own.
#include "bindings/runtime_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/event_fd_wrap.h"

namespace vivarium {
namespace {

// A spin is a short look, never a way to hold a core.
constexpr uint64_t kMaxSpinNs = 10'000'000;

}  // namespace

Napi::Function RuntimeWrap::define(Napi::Env env) {
  return DefineClass(env, "Runtime",
                     {
                         InstanceMethod<&RuntimeWrap::next>("next"),
                         InstanceMethod<&RuntimeWrap::setVcpuSpin>("setVcpuSpin"),
                         InstanceMethod<&RuntimeWrap::watch>("watch"),
                         InstanceMethod<&RuntimeWrap::unwatch>("unwatch"),
                         InstanceMethod<&RuntimeWrap::ref>("ref"),
                         InstanceMethod<&RuntimeWrap::unref>("unref"),
                         InstanceMethod<&RuntimeWrap::counts>("counts"),
                     });
}

RuntimeWrap::RuntimeWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RuntimeWrap>(info) {
  if (!Environment::of(info.Env()).initialized()) throw Napi::TypeError::New(info.Env(), "made by initialize() only");
}

Napi::Value RuntimeWrap::next(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const uint64_t spinNs = integerArgument(info, 0, "spinNs", kMaxSpinNs);
    return Napi::Number::New(info.Env(), Environment::of(info.Env()).runtime->ready->next(spinNs));
  });
}

Napi::Value RuntimeWrap::setVcpuSpin(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const uint64_t spinNs = integerArgument(info, 0, "spinNs", kMaxSpinNs);
    Environment::of(info.Env()).runtime->spinNs->store(spinNs, std::memory_order_relaxed);
    return info.Env().Undefined();
  });
}

Napi::Value RuntimeWrap::watch(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto& eventFd = wrapArgument<EventFdWrap>(info, 0, "eventFd")->eventFd();
    Runtime& runtime = *Environment::of(info.Env()).runtime;
    return Napi::Number::New(info.Env(), runtime.signals.watch(eventFd, *runtime.signalWatcher));
  });
}

Napi::Value RuntimeWrap::unwatch(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Environment::of(info.Env()).runtime->signals.unwatch(u32Argument(info, 0, "sourceId"));
    return info.Env().Undefined();
  });
}

Napi::Value RuntimeWrap::ref(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Environment::of(info.Env()).ref();
    return info.Env().Undefined();
  });
}

Napi::Value RuntimeWrap::unref(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Environment::of(info.Env()).unref();
    return info.Env().Undefined();
  });
}

Napi::Value RuntimeWrap::counts(const Napi::CallbackInfo& info) {
  const Counters& counters = *Environment::of(info.Env()).counters;
  Napi::Object counts = Napi::Object::New(info.Env());
  counts.Set("systems", counters.systems.load());
  counts.Set("vms", counters.vms.load());
  counts.Set("vcpus", counters.vcpus.load());
  counts.Set("threads", counters.threads.load());
  counts.Set("mappings", counters.mappings.load());
  counts.Set("eventFds", counters.eventFds.load());
  counts.Set("ioQueues", counters.ioQueues.load());
  counts.Set("taps", counters.taps.load());
  counts.Set("groupPools", counters.groupPools.load());
  counts.Set("groupStores", counters.groupStores.load());
  return counts;
}

}  // namespace vivarium

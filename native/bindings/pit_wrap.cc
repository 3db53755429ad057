// Arguments in, outcomes out. What is asked for is checked against the 8254's and the kernel's bounds, not for sense.
#include "bindings/pit_wrap.h"

#include <limits>

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/views.h"
#include "core/clock.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxCount = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kMaxMode = 5;
constexpr uint64_t kMaxLatch = std::numeric_limits<uint8_t>::max();
// Long enough for anything, and no sum with the time since boot overflows.
constexpr uint64_t kMaxDelayNs = uint64_t{1} << 62;
constexpr uint64_t kMinIntervalNs = 1'000'000;

struct Birth {
  std::shared_ptr<VmShared> shared;
  std::shared_ptr<PitSteering> steering;
};

Napi::Object objectValue(Napi::Value value, const char* name) {
  if (!value.IsObject()) throwType(std::string(name) + ": an object is wanted");
  return value.As<Napi::Object>();
}

uint64_t delayValue(Napi::Value value, const char* name) {
  const uint64_t delayNs = bigintValue(value, name);
  if (delayNs > kMaxDelayNs) throwRange(std::string(name) + ": not from 0 to 2^62");
  return delayNs;
}

PitLoad loadValue(Napi::Value value, const char* name, uint64_t minCount) {
  const Napi::Object object = objectValue(value, name);
  const std::string prefix = std::string(name) + ".";
  const uint64_t count = integerValue(object.Get("count"), (prefix + "count").c_str(), kMaxCount);
  if (count < minCount) throwRange(prefix + "count: not from 1 to 4294967295");
  const uint64_t latch = integerValue(object.Get("latch"), (prefix + "latch").c_str(), kMaxLatch);
  return PitLoad{static_cast<uint32_t>(count), static_cast<uint8_t>(latch)};
}

// What channel 0 must hold, or must not have changed from: count 0 and mode 0 while it was never programmed.
struct Expected {
  PitLoad load;
  uint8_t mode;
};

Expected expectedValue(Napi::Value value) {
  const PitLoad load = loadValue(value, "expected", 0);
  const Napi::Value mode = value.As<Napi::Object>().Get("mode");
  return Expected{load, static_cast<uint8_t>(integerValue(mode, "expected.mode", kMaxMode))};
}

PitCalm calmArgument(const Napi::CallbackInfo& info) {
  const Napi::Object object = objectValue(info[0], "calm");
  const Expected expected = expectedValue(object.Get("expected"));
  PitCalm calm{expected.load, expected.mode};
  calm.periodNs = delayValue(object.Get("periodNs"), "periodNs");
  calm.sinceNs = bigintValue(object.Get("sinceNs"), "sinceNs");
  // Of a time that is still to come nothing could be said.
  if (calm.sinceNs > monotonicNs()) throwRange("sinceNs: not a time that has passed");
  calm.delivered = bigintValue(object.Get("delivered"), "delivered");
  calm.behindNs = delayValue(object.Get("behindNs"), "behindNs");
  calm.aheadNs = delayValue(object.Get("aheadNs"), "aheadNs");
  calm.intervalNs = delayValue(object.Get("intervalNs"), "intervalNs");
  if (calm.intervalNs < kMinIntervalNs) throwRange("intervalNs: less than a millisecond");
  return calm;
}

PitChange changeArgument(const Napi::CallbackInfo& info) {
  const Napi::Object object = objectValue(info[0], "change");
  PitChange change;
  const Expected expected = expectedValue(object.Get("expected"));
  change.wish.expected = expected.load;
  change.wish.expectedMode = expected.mode;
  if (const Napi::Value load = object.Get("load"); !load.IsUndefined()) change.wish.load = loadValue(load, "load", 1);
  if (const Napi::Value reinject = object.Get("reinject"); !reinject.IsUndefined()) {
    if (!reinject.IsBoolean()) throwType("reinject: a boolean is wanted");
    change.wish.reinject = reinject.As<Napi::Boolean>().Value();
  }
  change.waitForTickNs = delayValue(object.Get("waitForTickNs"), "waitForTickNs");
  if (const Napi::Value value = object.Get("expiry"); !value.IsUndefined()) {
    const Napi::Object expiry = objectValue(value, "expiry");
    change.expiry = PitChange::Expiry{delayValue(expiry.Get("afterNs"), "expiry.afterNs"),
                                      loadValue(expiry.Get("load"), "expiry.load", 1)};
  }
  return change;
}

const char* resultName(PitOutcome::Result result) {
  switch (result) {
    case PitOutcome::Result::kApplied: return "applied";
    case PitOutcome::Result::kChanged: return "changed";
    case PitOutcome::Result::kBusy: return "busy";
    case PitOutcome::Result::kFailed: break;
  }
  return "failed";
}

void setReading(Napi::Env env, Napi::Object object, const PitReading& reading) {
  object.Set("count", Napi::Number::New(env, reading.load.count));
  object.Set("mode", Napi::Number::New(env, reading.mode));
  object.Set("latch", Napi::Number::New(env, reading.load.latch));
  object.Set("midWrite", reading.midWrite);
}

Napi::Value outcomeObject(Napi::Env env, const PitOutcome& outcome) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("expired", outcome.expired);
  object.Set("result", resultName(outcome.result));
  if (outcome.failure.has_value()) {
    object.Set("error", Environment::of(env).error(env, *outcome.failure).Value());
    return object;
  }
  object.Set("atNs", Napi::BigInt::New(env, outcome.atNs));
  object.Set("delivered", Napi::BigInt::New(env, outcome.delivered));
  object.Set("heldNs", Napi::BigInt::New(env, outcome.heldNs));
  setReading(env, object, outcome.reading);
  return object;
}

}  // namespace

Napi::Function PitWrap::define(Napi::Env env) {
  return DefineClass(env, "Pit",
                     {
                         InstanceMethod<&PitWrap::delivered>("delivered"),
                         InstanceMethod<&PitWrap::read>("read"),
                         InstanceMethod<&PitWrap::change>("change"),
                         InstanceMethod<&PitWrap::takeOutcome>("takeOutcome"),
                         InstanceMethod<&PitWrap::watch>("watch"),
                         InstanceMethod<&PitWrap::takeLook>("takeLook"),
                         InstanceMethod<&PitWrap::takeStir>("takeStir"),
                     });
}

Napi::Value PitWrap::create(Napi::Env env, std::shared_ptr<VmShared> shared, std::shared_ptr<PitSteering> steering,
                            Napi::Value vm) {
  Birth birth{std::move(shared), std::move(steering)};
  return Environment::of(env).pitClass.New({Napi::External<Birth>::New(env, &birth), vm});
}

PitWrap::PitWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PitWrap>(info) {
  guarded(info, [&] {
    if (info.Length() != 2 || !info[0].IsExternal()) throwType("made by openPit() only");
    const Birth* birth = info[0].As<Napi::External<Birth>>().Data();
    shared_ = birth->shared;
    steering_ = birth->steering;
    shared_->pit = this;
    Napi::Object self = info.This().As<Napi::Object>();
    defineConstant(self, "sourceId", Napi::Number::New(info.Env(), steering_->source()->id()));
    // A VM must not be collected while its PIT can still be used.
    self.DefineProperty(Napi::PropertyDescriptor::Value("vm", info[1], napi_default));
  });
}

PitWrap::~PitWrap() {
  if (shared_ != nullptr) shared_->pit = nullptr;
}

PitSteering& PitWrap::steering() const {
  if (steering_ == nullptr) throwClosed("pit");
  return *steering_;
}

Napi::Value PitWrap::delivered(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::BigInt::New(info.Env(), steering().delivered()); });
}

Napi::Value PitWrap::read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Napi::Object object = Napi::Object::New(info.Env());
    setReading(info.Env(), object, steering().read());
    return object;
  });
}

Napi::Value PitWrap::change(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    steering().change(changeArgument(info));
    return info.Env().Undefined();
  });
}

Napi::Value PitWrap::takeOutcome(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::optional<PitOutcome> outcome = steering().takeOutcome();
    return outcome.has_value() ? outcomeObject(info.Env(), *outcome) : info.Env().Undefined();
  });
}

Napi::Value PitWrap::watch(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    steering().watch().watch(absent(info, 0) ? std::nullopt : std::optional(calmArgument(info)));
    return info.Env().Undefined();
  });
}

Napi::Value PitWrap::takeLook(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const std::optional<PitLook> look = steering().watch().takeLook();
    if (!look.has_value()) return env.Undefined();
    Napi::Object object = Napi::Object::New(env);
    object.Set("atNs", Napi::BigInt::New(env, look->atNs));
    object.Set("delivered", Napi::BigInt::New(env, look->delivered));
    object.Set("vcpuCpuNs", toBigUint64Array(env, look->vcpuCpuNs));
    return object;
  });
}

Napi::Value PitWrap::takeStir(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Boolean::New(info.Env(), steering().watch().takeStir()); });
}

}  // namespace vivarium

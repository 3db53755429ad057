// Arguments in, errors out.
#include "bindings/pager_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_handles.h"
#include "bindings/memory_wrap.h"
#include "bindings/vm_wrap.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxTimeoutMs = 3'600'000;
constexpr uint32_t kMaxBufferGroups = 16384;
constexpr uint64_t kNsPerMs = 1'000'000;

// Pairs: the first group, and how many.
std::vector<GroupRun> runsArgument(const Napi::CallbackInfo& info, size_t index, uint32_t groups) {
  const std::span<uint32_t> words = u32ArrayArgument(info, index, "runs");
  if (words.size() % 2 != 0) throwRange("runs: not a whole number of pairs");
  std::vector<GroupRun> runs;
  for (size_t at = 0; at < words.size(); at += 2) {
    if (words[at] > groups || words[at + 1] > groups - words[at]) throwRange("runs: a group beyond the memory");
    runs.push_back({words[at], words[at + 1]});
  }
  return runs;
}

const char* phaseName(WriteIntercept::Phase phase) {
  switch (phase) {
    case WriteIntercept::Phase::kOff: return "off";
    case WriteIntercept::Phase::kArmed: return "armed";
    case WriteIntercept::Phase::kActive: return "active";
    case WriteIntercept::Phase::kDone: return "done";
  }
  return "";
}

const char* whyName(LoadFailure::Why why) {
  switch (why) {
    case LoadFailure::Why::kNone: return "none";
    case LoadFailure::Why::kShortRead: return "short-read";
    case LoadFailure::Why::kChecksum: return "checksum";
    case LoadFailure::Why::kDecompress: return "decompress";
    case LoadFailure::Why::kSystem: return "system";
    case LoadFailure::Why::kTimeout: return "timeout";
    case LoadFailure::Why::kInstall: return "install";
    case LoadFailure::Why::kClosed: return "closed";
  }
  return "";
}

void set(Napi::Object object, const char* name, uint64_t value) {
  object.Set(name, static_cast<double>(value));
}

Napi::Value interceptObject(Napi::Env env, const Pager::Status& status) {
  Napi::Object object = Napi::Object::New(env);
  const InterceptStats& stats = status.intercept;
  object.Set("phase", phaseName(status.phase));
  set(object, "groups", stats.groups);
  set(object, "saved", stats.saved);
  set(object, "savedByFault", stats.savedByFault);
  set(object, "faults", stats.faults);
  set(object, "armedFaults", stats.armedFaults);
  set(object, "protectedAgain", stats.protectedAgain);
  set(object, "bufferHighWater", stats.bufferHighWater);
  set(object, "stalls", stats.stalls);
  set(object, "stallNs", stats.stallNs);
  set(object, "stallMaxNs", stats.stallMaxNs);
  set(object, "faultNs", stats.faultNs);
  set(object, "faultMaxNs", stats.faultMaxNs);
  set(object, "armNs", stats.armNs);
  set(object, "protectNs", stats.protectNs);
  return object;
}

Napi::Value loadObject(Napi::Env env, const Pager::Status& status) {
  if (!status.lazy) return env.Undefined();
  Napi::Object object = Napi::Object::New(env);
  set(object, "missing", status.load.missing);
  set(object, "hotMissing", status.load.hotMissing);
  set(object, "faults", status.load.faults);
  set(object, "retries", status.load.retries);
  set(object, "faultNs", status.load.faultNs);
  set(object, "faultMaxNs", status.load.faultMaxNs);
  return object;
}

Napi::Value failureObject(Napi::Env env, const Pager::Status& status) {
  if (!status.failed) return env.Undefined();
  Napi::Object object = Napi::Object::New(env);
  object.Set("why", whyName(status.failure.why));
  set(object, "group", status.failure.group);
  set(object, "file", status.failure.file);
  set(object, "fileOffset", status.failure.fileOffset);
  set(object, "errnoNumber", static_cast<uint64_t>(status.failure.errnoNumber));
  return object;
}

}  // namespace

Napi::Function PagerWrap::define(Napi::Env env) {
  return DefineClass(env, "Pager",
                     {
                         InstanceAccessor<&PagerWrap::sourceId>("sourceId"),
                         InstanceMethod<&PagerWrap::states>("states"),
                         InstanceMethod<&PagerWrap::guard>("guard"),
                         InstanceMethod<&PagerWrap::serve>("serve"),
                         InstanceMethod<&PagerWrap::fill>("fill"),
                         InstanceMethod<&PagerWrap::noteTouched>("noteTouched"),
                         InstanceMethod<&PagerWrap::ensure>("ensure"),
                         InstanceMethod<&PagerWrap::prepare>("prepare"),
                         InstanceMethod<&PagerWrap::arm>("arm"),
                         InstanceMethod<&PagerWrap::begin>("begin"),
                         InstanceMethod<&PagerWrap::walk>("walk"),
                         InstanceMethod<&PagerWrap::release>("release"),
                         InstanceMethod<&PagerWrap::status>("status"),
                         InstanceMethod<&PagerWrap::close>("close"),
                     });
}

PagerWrap::PagerWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PagerWrap>(info), views_(info.Env()) {
  guarded(info, [&] {
    const GuestMemory& memory = wrapArgument<MemoryWrap>(info, 0, "memory")->memory();
    Environment& environment = Environment::of(info.Env());
    pager_ = std::make_shared<Pager>(environment.runtime, memory);
    environment.addPager(pager_);
  });
}

PagerWrap::~PagerWrap() {
  if (pager_ != nullptr) pager_->close();
}

Pager& PagerWrap::pager() const {
  if (pager_ == nullptr) throwClosed("pager");
  return *pager_;
}

Napi::Value PagerWrap::sourceId(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), pager().source()->id()); });
}

Napi::Value PagerWrap::states(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Pager& self = pager();
    return views_.create(self.states(), self.states()->data(), self.groups());
  });
}

Napi::Value PagerWrap::guard(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().guard(wrapArgument<VmWrap>(info, 0, "vm")->vcpus());
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::serve(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Pager& self = pager();
    auto source = groupHandleArgument<GroupSource>(info, 0, "source");
    const std::span<uint32_t> order = u32ArrayArgument(info, 1, "order");
    for (const uint32_t group : order) {
      if (group >= self.groups()) throwRange("order: group " + std::to_string(group) + " is beyond the memory");
    }
    const auto hotCount = static_cast<uint32_t>(integerArgument(info, 2, "hotCount", order.size()));
    const uint64_t timeoutMs = integerArgument(info, 3, "readTimeoutMs", kMaxTimeoutMs);
    if (timeoutMs == 0) throwRange("readTimeoutMs: 0");
    self.serve(std::move(source), {order.begin(), order.end()}, hotCount, timeoutMs * kNsPerMs);
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::fill(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().fill();
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::noteTouched(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().noteTouched();
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::ensure(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Pager& self = pager();
    const uint64_t bytes = uint64_t{self.groups()} * kGroupBytes;
    const uint64_t offset = integerArgument(info, 0, "offset", bytes);
    const uint64_t length = integerArgument(info, 1, "length", bytes - offset);
    switch (self.ensure(offset, length, integerArgument(info, 2, "timeoutMs", kMaxTimeoutMs) * kNsPerMs)) {
      case Pager::Ensured::kPresent: return Napi::String::New(info.Env(), "present");
      case Pager::Ensured::kFailed: return Napi::String::New(info.Env(), "failed");
      case Pager::Ensured::kTimeout: return Napi::String::New(info.Env(), "timeout");
    }
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::prepare(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().prepare(static_cast<uint32_t>(integerArgument(info, 0, "bufferGroups", kMaxBufferGroups)));
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::arm(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Pager& self = pager();
    self.arm(runsArgument(info, 0, self.groups()));
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::begin(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    Pager& self = pager();
    const std::vector<GroupRun> runs = runsArgument(info, 0, self.groups());
    auto sink = groupHandleArgument<GroupSink>(info, 1, "sink");
    self.begin(runs, std::move(sink));
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::walk(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().walkOn();
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::release(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    pager().release();
    return info.Env().Undefined();
  });
}

Napi::Value PagerWrap::status(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Pager::Status status = pager().status();
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("intercept", interceptObject(info.Env(), status));
    object.Set("load", loadObject(info.Env(), status));
    object.Set("failure", failureObject(info.Env(), status));
    return object;
  });
}

Napi::Value PagerWrap::close(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    views_.detach();
    if (pager_ != nullptr) pager_->close();
    pager_.reset();
    return info.Env().Undefined();
  });
}

Napi::Value userFaultSupport(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const UserFaultSupport support = UserFault::probe();
    Napi::Object object = Napi::Object::New(info.Env());
    set(object, "features", support.features);
    if (support.step != nullptr) {
      object.Set("step", support.step);
      object.Set("errno", errnoName(support.errnoNumber));
    }
    return object;
  });
}

}  // namespace vivarium

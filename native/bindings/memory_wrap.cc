// Arguments in, errors out. close() detaches the views; the mapping goes when no memory slot holds it any more.
#include "bindings/memory_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_store_wrap.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxViewBytes = uint64_t{4} << 30;

}  // namespace

Napi::Function MemoryWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceAccessor<&MemoryWrap::sizeBytes>("sizeBytes"),
                         InstanceAccessor<&MemoryWrap::fd>("fd"),
                         InstanceMethod<&MemoryWrap::view>("view"),
                         InstanceMethod<&MemoryWrap::dirtyBitmap>("dirtyBitmap"),
                         InstanceMethod<&MemoryWrap::close>("close"),
                     });
}

MemoryWrap::MemoryWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryWrap>(info), views_(info.Env()) {
  guarded(info, [&] {
    if (!info[0].IsObject()) throwType("options: an object is wanted");
    const auto options = info[0].As<Napi::Object>();
    const Napi::Value hugePages = options.Get("hugePages");
    if (!hugePages.IsBoolean()) throwType("hugePages: a boolean is wanted");
    const bool huge = hugePages.As<Napi::Boolean>().Value();
    const CountersPtr& counters = Environment::of(info.Env()).counters;
    setTag(info.Env(), info.This(), kTag);
    const Napi::Value store = options.Get("store");
    if (!store.IsUndefined()) {
      checkTag(store, GroupStoreWrap::kTag, "store", GroupStoreWrap::kClassName);
      memory_ =
          std::make_unique<GuestMemory>(counters, GroupStoreWrap::Unwrap(store.As<Napi::Object>())->store(), huge);
      return;
    }
    const uint64_t size = integerValue(options.Get("sizeBytes"), "sizeBytes", GuestMemory::kMaxBytes);
    if (size == 0 || size % GuestMemory::kPageBytes != 0) throwRange("sizeBytes: not a multiple of 4096 above 0");
    const Napi::Value backing = options.Get("backing");
    const std::string backingName = backing.IsString() ? backing.As<Napi::String>().Utf8Value() : "";
    if (backingName != "anonymous" && backingName != "memfd") throwType("backing: 'anonymous' or 'memfd' is wanted");
    memory_ = std::make_unique<GuestMemory>(counters, size,
                                            backingName == "memfd" ? Backing::kMemfd : Backing::kAnonymous, huge);
  });
}

const GuestMemory& MemoryWrap::memory() const {
  if (memory_ == nullptr) throwClosed("memory");
  return *memory_;
}

Napi::Value MemoryWrap::sizeBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), memory_ == nullptr ? 0 : static_cast<double>(memory_->sizeBytes()));
}

Napi::Value MemoryWrap::fd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), memory_ == nullptr ? -1 : memory_->fd());
}

Napi::Value MemoryWrap::view(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const GuestMemory& guest = memory();
    const uint64_t offset = integerArgument(info, 0, "offset", guest.sizeBytes());
    const uint64_t length = integerArgument(info, 1, "length", kMaxViewBytes);
    if (length > guest.sizeBytes() - offset) throwRange("length: the view ends beyond the memory");
    return views_.create(guest.mapping(), guest.mapping()->data() + offset, length);
  });
}

Napi::Value MemoryWrap::dirtyBitmap(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const GuestMemory& guest = memory();
    return views_.create(guest.dirtyBitmap(), guest.dirtyBitmap()->data(), guest.dirtyBitmapBytes());
  });
}

Napi::Value MemoryWrap::close(const Napi::CallbackInfo& info) {
  views_.detach();
  memory_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

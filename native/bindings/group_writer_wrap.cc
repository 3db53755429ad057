// Arguments in, errors out. close() waits for the batch that each thread has in hand.
#include "bindings/group_writer_wrap.h"

#include <climits>

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_handles.h"
#include "bindings/memory_wrap.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxThreads = 16;
constexpr uint64_t kMaxBufferGroups = 1 << 16;  // 4 GiB
constexpr uint64_t kMaxLevel = 22;              // ZSTD_maxCLevel()

}  // namespace

Napi::Function GroupWriterWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceAccessor<&GroupWriterWrap::sourceId>("sourceId"),
                         InstanceMethod<&GroupWriterWrap::write>("write"),
                         InstanceMethod<&GroupWriterWrap::copy>("copy"),
                         InstanceMethod<&GroupWriterWrap::offer>("offer"),
                         InstanceMethod<&GroupWriterWrap::cancel>("cancel"),
                         InstanceMethod<&GroupWriterWrap::finish>("finish"),
                         InstanceMethod<&GroupWriterWrap::progress>("progress"),
                         InstanceMethod<&GroupWriterWrap::rows>("rows"),
                         InstanceMethod<&GroupWriterWrap::sink>("sink"),
                         InstanceMethod<&GroupWriterWrap::fileBytes>("fileBytes"),
                         InstanceMethod<&GroupWriterWrap::close>("close"),
                     });
}

GroupWriterWrap::GroupWriterWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GroupWriterWrap>(info) {
  guarded(info, [&] {
    const GuestMemory& memory = wrapArgument<MemoryWrap>(info, 0, "memory")->memory();
    if (!info[1].IsObject()) throwType("options: an object is wanted");
    const auto options = info[1].As<Napi::Object>();
    GroupWriterOptions wanted;
    wanted.fd = static_cast<int>(integerValue(options.Get("fd"), "fd", INT_MAX));
    wanted.level = static_cast<int>(integerValue(options.Get("zstdLevel"), "zstdLevel", kMaxLevel));
    wanted.compress = wanted.level > 0;
    wanted.threads = static_cast<uint32_t>(integerValue(options.Get("threads"), "threads", kMaxThreads));
    wanted.bufferGroups =
        static_cast<uint32_t>(integerValue(options.Get("bufferGroups"), "bufferGroups", kMaxBufferGroups));
    Environment& environment = Environment::of(info.Env());
    writer_ = std::make_shared<GroupWriter>(environment.runtime, memory.mapping(), wanted);
    environment.addGroupPool(writer_);
    setTag(info.Env(), info.This(), kTag);
  });
}

GroupWriter& GroupWriterWrap::writer() const {
  if (writer_ == nullptr) throwClosed("snapshot writer");
  return *writer_;
}

Napi::Value GroupWriterWrap::sink(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    writer();
    return makeGroupHandle<GroupSink>(info.Env(), writer_);
  });
}

Napi::Value GroupWriterWrap::sourceId(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), writer().sourceId()); });
}

Napi::Value GroupWriterWrap::write(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    writer().write(u32ArrayArgument(info, 0, "groups"));
    return info.Env().Undefined();
  });
}

Napi::Value GroupWriterWrap::copy(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    writer().copy(u32ArrayArgument(info, 0, "groups"));
    return info.Env().Undefined();
  });
}

Napi::Value GroupWriterWrap::offer(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const uint32_t group = u32Argument(info, 0, "group");
    const auto bytes = bytesArgument(info, 1, "bytes");
    if (bytes.size() != kGroupBytes) throwRange("bytes: not one group");
    return Napi::Boolean::New(info.Env(), writer().offer(group, bytes.data()));
  });
}

Napi::Value GroupWriterWrap::cancel(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    writer().cancel();
    return info.Env().Undefined();
  });
}

Napi::Value GroupWriterWrap::finish(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    writer().finish();
    return info.Env().Undefined();
  });
}

Napi::Value GroupWriterWrap::progress(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const GroupWriterProgress progress = writer().progress();
    Napi::Object object = Napi::Object::New(info.Env());
    const auto number = [&](const char* name, uint64_t value) { object.Set(name, static_cast<double>(value)); };
    object.Set("idle", progress.idle);
    number("groupsDone", progress.groupsDone);
    number("zeroGroups", progress.zeroGroups);
    number("sameGroups", progress.sameGroups);
    number("rawGroups", progress.rawGroups);
    number("zstdGroups", progress.zstdGroups);
    number("bytesWritten", progress.bytesWritten);
    if (progress.failure.syscall != nullptr) {
      Napi::Object failure = Napi::Object::New(info.Env());
      failure.Set("syscall", progress.failure.syscall);
      failure.Set("errno", errnoName(progress.failure.errnoNumber));
      failure.Set("errnoNumber", progress.failure.errnoNumber);
      failure.Set("fileOffset", static_cast<double>(progress.failure.fileOffset));
      object.Set("failure", failure);
    }
    return object;
  });
}

Napi::Value GroupWriterWrap::rows(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const std::vector<GroupRow> rows = writer().rows();
    return toUint8Array(info.Env(), {reinterpret_cast<const uint8_t*>(rows.data()), rows.size() * sizeof(GroupRow)});
  });
}

Napi::Value GroupWriterWrap::fileBytes(const Napi::CallbackInfo& info) {
  return guarded(
      info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), static_cast<double>(writer().fileBytes())); });
}

Napi::Value GroupWriterWrap::close(const Napi::CallbackInfo& info) {
  if (writer_ != nullptr) writer_->close();
  writer_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

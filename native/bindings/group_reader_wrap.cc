// Arguments in, errors out. A failed group is a value: what it means is lib/memory's to say.
#include "bindings/group_reader_wrap.h"

#include <cstring>

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_handles.h"
#include "bindings/memory_wrap.h"

namespace vivarium {
namespace {

constexpr uint64_t kMaxThreads = 16;

const char* nameOf(GroupReadResult::Kind kind) {
  switch (kind) {
    case GroupReadResult::Kind::kData: return "data";
    case GroupReadResult::Kind::kZero: return "zero";
    case GroupReadResult::Kind::kShortRead: return "short-read";
    case GroupReadResult::Kind::kChecksum: return "checksum";
    case GroupReadResult::Kind::kDecompress: return "decompress";
    case GroupReadResult::Kind::kSystem: return "system";
  }
  return "system";
}

Napi::Object toObject(Napi::Env env, uint64_t group, const GroupReadResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", nameOf(result.kind));
  object.Set("group", static_cast<double>(group));
  object.Set("file", result.file);
  object.Set("fileOffset", static_cast<double>(result.fileOffset));
  object.Set("errno", result.errnoNumber == 0 ? std::string() : errnoName(result.errnoNumber));
  object.Set("errnoNumber", result.errnoNumber);
  return object;
}

}  // namespace

Napi::Function GroupReaderWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceAccessor<&GroupReaderWrap::sourceId>("sourceId"),
                         InstanceMethod<&GroupReaderWrap::read>("read"),
                         InstanceMethod<&GroupReaderWrap::load>("load"),
                         InstanceMethod<&GroupReaderWrap::cancel>("cancel"),
                         InstanceMethod<&GroupReaderWrap::progress>("progress"),
                         InstanceMethod<&GroupReaderWrap::source>("source"),
                         InstanceMethod<&GroupReaderWrap::close>("close"),
                     });
}

GroupReaderWrap::GroupReaderWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GroupReaderWrap>(info) {
  guarded(info, [&] {
    const auto fds = u32ArrayArgument(info, 0, "fds");
    const auto bytes = bytesArgument(info, 1, "rows");
    const auto threads = static_cast<uint32_t>(integerArgument(info, 2, "threads", kMaxThreads));
    if (bytes.size() % sizeof(GroupRow) != 0) throwRange("rows: not whole rows");
    std::vector<GroupRow> rows(bytes.size() / sizeof(GroupRow));
    if (!rows.empty()) std::memcpy(rows.data(), bytes.data(), bytes.size());
    Environment& environment = Environment::of(info.Env());
    reader_ = std::make_shared<GroupReader>(environment.runtime, fds, std::move(rows), threads);
    environment.addGroupPool(reader_);
    setTag(info.Env(), info.This(), kTag);
  });
}

GroupReader& GroupReaderWrap::reader() const {
  if (reader_ == nullptr) throwClosed("snapshot reader");
  return *reader_;
}

Napi::Value GroupReaderWrap::source(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    reader();
    return makeGroupHandle<GroupSource>(info.Env(), reader_);
  });
}

Napi::Value GroupReaderWrap::sourceId(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), reader().sourceId()); });
}

Napi::Value GroupReaderWrap::read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const uint64_t group = u32Argument(info, 0, "group");
    const auto into = bytesArgument(info, 1, "into");
    if (group >= reader().groups()) throwRange("group: not one of the snapshot");
    if (into.size() != kGroupBytes) throwRange("into: not one group");
    return toObject(info.Env(), group, reader().read(group, into.data()));
  });
}

Napi::Value GroupReaderWrap::load(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const auto groups = u32ArrayArgument(info, 0, "groups");
    std::shared_ptr<Mapping> memory;
    if (!absent(info, 1)) memory = wrapArgument<MemoryWrap>(info, 1, "memory")->memory().mapping();
    reader().load(std::move(memory), groups, !absent(info, 2) && booleanArgument(info, 2, "fresh"));
    return info.Env().Undefined();
  });
}

Napi::Value GroupReaderWrap::cancel(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    reader().cancel();
    return info.Env().Undefined();
  });
}

Napi::Value GroupReaderWrap::progress(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const GroupReaderProgress progress = reader().progress();
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("idle", progress.idle);
    object.Set("groupsDone", static_cast<double>(progress.groupsDone));
    object.Set("bytesRead", static_cast<double>(progress.bytesRead));
    if (progress.failure.failed()) {
      object.Set("failure", toObject(info.Env(), progress.failedGroup, progress.failure));
    }
    return object;
  });
}

Napi::Value GroupReaderWrap::close(const Napi::CallbackInfo& info) {
  if (reader_ != nullptr) reader_->close();
  reader_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

// Arguments in, errors out.
#include "bindings/memory_groups_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/group_handles.h"
#include "bindings/memory_wrap.h"

namespace vivarium {
namespace {

GroupReadResult::Kind kindArgument(const Napi::CallbackInfo& info, size_t index) {
  const std::string name = stringArgument(info, index, "kind");
  if (name == "hang") return GroupReadResult::Kind::kData;
  if (name == "short-read") return GroupReadResult::Kind::kShortRead;
  if (name == "checksum") return GroupReadResult::Kind::kChecksum;
  if (name == "decompress") return GroupReadResult::Kind::kDecompress;
  if (name == "system") return GroupReadResult::Kind::kSystem;
  throwType("kind: 'hang', 'short-read', 'checksum', 'decompress' or 'system' is wanted");
}

}  // namespace

Napi::Function MemoryGroupsWrap::define(Napi::Env env) {
  return DefineClass(env, "MemoryGroups",
                     {
                         InstanceMethod<&MemoryGroupsWrap::sink>("sink"),
                         InstanceMethod<&MemoryGroupsWrap::source>("source"),
                         InstanceMethod<&MemoryGroupsWrap::setRoom>("setRoom"),
                         InstanceMethod<&MemoryGroupsWrap::failAt>("failAt"),
                         InstanceMethod<&MemoryGroupsWrap::letGo>("letGo"),
                         InstanceMethod<&MemoryGroupsWrap::offers>("offers"),
                     });
}

MemoryGroupsWrap::MemoryGroupsWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryGroupsWrap>(info) {
  guarded(info, [&] {
    groups_ = std::make_shared<MemoryGroups>(wrapArgument<MemoryWrap>(info, 0, "memory")->memory().mapping());
  });
}

Napi::Value MemoryGroupsWrap::sink(const Napi::CallbackInfo& info) {
  return makeGroupHandle<GroupSink>(info.Env(), groups_);
}

Napi::Value MemoryGroupsWrap::source(const Napi::CallbackInfo& info) {
  return makeGroupHandle<GroupSource>(info.Env(), groups_);
}

Napi::Value MemoryGroupsWrap::setRoom(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    groups_->setRoom(u32Argument(info, 0, "offers"));
    return info.Env().Undefined();
  });
}

Napi::Value MemoryGroupsWrap::failAt(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const uint32_t group = u32Argument(info, 0, "group");
    const GroupReadResult::Kind kind = kindArgument(info, 1);
    const auto errnoNumber = static_cast<int>(integerArgument(info, 2, "errnoNumber", INT32_MAX));
    groups_->failAt(group, kind, errnoNumber, u32Argument(info, 3, "times"));
    return info.Env().Undefined();
  });
}

Napi::Value MemoryGroupsWrap::letGo(const Napi::CallbackInfo& info) {
  groups_->letGo();
  return info.Env().Undefined();
}

Napi::Value MemoryGroupsWrap::offers(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return toUint32Array(info.Env(), groups_->offers()); });
}

}  // namespace vivarium

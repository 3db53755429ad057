// The addon's exports (NativeAddon of lib/kvm/native.ts), and the state of each environment that loads it.
#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/event_fd_wrap.h"
#include "bindings/group_reader_wrap.h"
#include "bindings/group_store_wrap.h"
#include "bindings/group_writer_wrap.h"
#include "bindings/io_queue_wrap.h"
#include "bindings/memory_groups_wrap.h"
#include "bindings/memory_wrap.h"
#include "bindings/napi.h"
#include "bindings/pager_wrap.h"
#include "bindings/pit_wrap.h"
#include "bindings/runtime_wrap.h"
#include "bindings/struct_sizes.h"
#include "bindings/system_wrap.h"
#include "bindings/tap_wrap.h"
#include "bindings/vcpu_wrap.h"
#include "bindings/views.h"
#include "bindings/vm_wrap.h"
#include "core/file_lock.h"
#include "core/rename.h"
#include "core/seal.h"
#include "io/uring_executor.h"
#include "net/socket_pair.h"
#include "net/tap.h"
#include "snapshot/crc32c.h"
#include "snapshot/zstd.h"

namespace vivarium {
namespace {

Napi::Value initialize(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    if (environment.initialized()) throw Napi::Error::New(info.Env(), "initialize() was called before");
    if (!info[0].IsFunction()) throwType("errorFactory: a function is wanted");
    if (!info[1].IsFunction()) throwType("onDoorbell: a function is wanted");
    environment.initialize(info[0].As<Napi::Function>(), info[1].As<Napi::Function>());
    return environment.runtimeClass.New({});
  });
}

Napi::Value lockFileOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto fd = static_cast<int>(integerArgument(info, 0, "fd", INT32_MAX));
    const bool exclusive = booleanArgument(info, 1, "exclusive");
    return Napi::Boolean::New(info.Env(), lockFile(fd, exclusive ? FileLock::kExclusive : FileLock::kShared));
  });
}

Napi::Value interfaceIndexOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), interfaceIndex(stringArgument(info, 0, "name")));
  });
}

Napi::Value socketPairOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    SocketPair pair = socketPair(static_cast<int>(integerArgument(info, 0, "sendBufferBytes", INT32_MAX)));
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("own", pair.own.get());
    result.Set("other", pair.other.get());
    pair.own.release();
    pair.other.release();
    return result;
  });
}

Napi::Value sendDescriptorsOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto socket = static_cast<int>(integerArgument(info, 0, "socket", INT32_MAX));
    const std::span<const uint8_t> bytes = bytesArgument(info, 1, "bytes");
    sendDescriptors(socket, bytes, u32ArrayArgument(info, 2, "descriptors"));
    return info.Env().Undefined();
  });
}

Napi::Value renameOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::string from = stringArgument(info, 0, "from");
    const std::string to = stringArgument(info, 1, "to");
    const bool exchange = booleanArgument(info, 2, "exchange");
    return Napi::Number::New(info.Env(), renameAt(from, to, exchange ? RenameMode::kExchange : RenameMode::kNoReplace));
  });
}

Napi::Value sealProcessOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const bool connects = booleanArgument(info, 0, "connects");
    const bool taps = booleanArgument(info, 1, "taps");
    // One for the machine's disks, and one while another takes its place.
    UringExecutor::keepInReserve(2);
    return Napi::Number::New(info.Env(), sealProcess(Seal{connects, taps}));
  });
}

Napi::Value crc32cOf(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto bytes = bytesArgument(info, 0, "bytes");
    auto* by = &crc32c;
    if (!absent(info, 1)) by = booleanArgument(info, 1, "byTable") ? &crc32cByTable : &crc32cByInstruction;
    return Napi::Number::New(info.Env(), by(bytes.data(), bytes.size()));
  });
}

Napi::Value zstdAvailableOf(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), zstdAvailable());
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment(env);
  env.SetInstanceData<Environment>(environment);
  environment->runtimeClass = Napi::Persistent(RuntimeWrap::define(env));
  environment->vmClass = Napi::Persistent(VmWrap::define(env));
  environment->vcpuClass = Napi::Persistent(VcpuWrap::define(env));
  environment->pitClass = Napi::Persistent(PitWrap::define(env));
  defineConstant(exports, "structSizes", structSizes(env));
  exports.Set("initialize", Napi::Function::New<initialize>(env, "initialize"));
  exports.Set("lockFile", Napi::Function::New<lockFileOf>(env, "lockFile"));
  exports.Set("interfaceIndex", Napi::Function::New<interfaceIndexOf>(env, "interfaceIndex"));
  exports.Set("userFaultSupport", Napi::Function::New<userFaultSupport>(env, "userFaultSupport"));
  exports.Set("socketPair", Napi::Function::New<socketPairOf>(env, "socketPair"));
  exports.Set("sendDescriptors", Napi::Function::New<sendDescriptorsOf>(env, "sendDescriptors"));
  exports.Set("System", SystemWrap::define(env));
  exports.Set("Memory", MemoryWrap::define(env));
  exports.Set("EventFd", EventFdWrap::define(env));
  exports.Set("IoQueue", IoQueueWrap::define(env));
  exports.Set("renameAt", Napi::Function::New<renameOf>(env, "renameAt"));
  exports.Set("sealProcess", Napi::Function::New<sealProcessOf>(env, "sealProcess"));
  exports.Set("crc32c", Napi::Function::New<crc32cOf>(env, "crc32c"));
  exports.Set("zstdAvailable", Napi::Function::New<zstdAvailableOf>(env, "zstdAvailable"));
  exports.Set("GroupWriter", GroupWriterWrap::define(env));
  exports.Set("GroupReader", GroupReaderWrap::define(env));
  exports.Set("GroupStore", GroupStoreWrap::define(env));
  exports.Set("Tap", TapWrap::define(env));
  exports.Set("Pager", PagerWrap::define(env));
  exports.Set("MemoryGroups", MemoryGroupsWrap::define(env));
  return exports;
}

}  // namespace
}  // namespace vivarium

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return vivarium::init(env, exports);
}

NODE_API_MODULE(vivarium, Init)

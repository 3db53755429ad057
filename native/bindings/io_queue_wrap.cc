// Arguments in, errors out. close() waits for what is under way, so lib/memory calls it when nothing is.
#include "bindings/io_queue_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"
#include "bindings/memory_wrap.h"

namespace vivarium {
namespace {

IoKind kindArgument(const Napi::CallbackInfo& info, size_t index) {
  const std::string name = stringArgument(info, index, "kind");
  if (name == "auto") return IoKind::kAuto;
  if (name == "io_uring") return IoKind::kUring;
  if (name == "threads") return IoKind::kThreads;
  throwType("kind: 'auto', 'io_uring' or 'threads' is wanted");
}

}  // namespace

Napi::Function IoQueueWrap::define(Napi::Env env) {
  return DefineClass(env, "IoQueue",
                     {
                         InstanceAccessor<&IoQueueWrap::kind>("kind"),
                         InstanceAccessor<&IoQueueWrap::refusal>("refusal"),
                         InstanceAccessor<&IoQueueWrap::sourceId>("sourceId"),
                         InstanceMethod<&IoQueueWrap::area>("area"),
                         InstanceMethod<&IoQueueWrap::submit>("submit"),
                         InstanceMethod<&IoQueueWrap::reap>("reap"),
                         InstanceMethod<&IoQueueWrap::close>("close"),
                     });
}

IoQueueWrap::IoQueueWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<IoQueueWrap>(info), views_(info.Env()) {
  guarded(info, [&] {
    const GuestMemory& memory = wrapArgument<MemoryWrap>(info, 0, "memory")->memory();
    const IoKind kind = kindArgument(info, 1);
    Environment& environment = Environment::of(info.Env());
    queue_ = std::make_shared<IoQueue>(environment.runtime, memory.mapping(), kind);
    environment.addIoQueue(queue_);
  });
}

IoQueue& IoQueueWrap::queue() const {
  if (queue_ == nullptr) throwClosed("I/O queue");
  return *queue_;
}

Napi::Value IoQueueWrap::kind(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), queue().kind()); });
}

Napi::Value IoQueueWrap::refusal(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::String::New(info.Env(), queue().refusal()); });
}

Napi::Value IoQueueWrap::sourceId(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), queue().sourceId()); });
}

Napi::Value IoQueueWrap::area(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const std::shared_ptr<Mapping>& area = queue().area();
    return views_.create(area, area->data(), IoArea::kBytes);
  });
}

Napi::Value IoQueueWrap::submit(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), queue().submit(u32Argument(info, 0, "count")));
  });
}

Napi::Value IoQueueWrap::reap(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::Number::New(info.Env(), queue().reap()); });
}

Napi::Value IoQueueWrap::close(const Napi::CallbackInfo& info) {
  if (queue_ != nullptr) queue_->close();
  queue_.reset();
  views_.detach();
  return info.Env().Undefined();
}

}  // namespace vivarium

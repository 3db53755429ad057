// Arguments in, errors out. The descriptor stays open while it is still watched.
#include "bindings/event_fd_wrap.h"

#include "bindings/arguments.h"
#include "bindings/environment.h"

namespace vivarium {

Napi::Function EventFdWrap::define(Napi::Env env) {
  return DefineClass(env, kClassName,
                     {
                         InstanceAccessor<&EventFdWrap::fd>("fd"),
                         InstanceMethod<&EventFdWrap::write>("write"),
                         InstanceMethod<&EventFdWrap::read>("read"),
                         InstanceMethod<&EventFdWrap::close>("close"),
                     });
}

EventFdWrap::EventFdWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EventFdWrap>(info) {
  guarded(info, [&] {
    const uint32_t initial = absent(info, 0) ? 0 : u32Argument(info, 0, "initial");
    eventFd_ = std::make_shared<EventFd>(Environment::of(info.Env()).counters, initial);
    setTag(info.Env(), info.This(), kTag);
  });
}

const std::shared_ptr<EventFd>& EventFdWrap::eventFd() const {
  if (eventFd_ == nullptr) throwClosed("eventfd");
  return eventFd_;
}

Napi::Value EventFdWrap::fd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), eventFd_ == nullptr ? -1 : eventFd_->fd());
}

Napi::Value EventFdWrap::write(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    eventFd()->write(absent(info, 0) ? 1 : bigintArgument(info, 0, "count"));
    return info.Env().Undefined();
  });
}

Napi::Value EventFdWrap::read(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value { return Napi::BigInt::New(info.Env(), eventFd()->read()); });
}

Napi::Value EventFdWrap::close(const Napi::CallbackInfo& info) {
  eventFd_.reset();
  return info.Env().Undefined();
}

}  // namespace vivarium

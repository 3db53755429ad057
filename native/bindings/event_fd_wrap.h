// NativeEventFd of lib/kvm/native.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "core/event_fd.h"

namespace vivarium {

class EventFdWrap : public Napi::ObjectWrap<EventFdWrap> {
 public:
  static constexpr napi_type_tag kTag{0x5b1f0c0e6d6a4a17, 0x9f6a3d2be1c44f01};
  static constexpr const char* kClassName = "EventFd";
  static Napi::Function define(Napi::Env env);
  explicit EventFdWrap(const Napi::CallbackInfo& info);
  // Throws Failure kClosed.
  const std::shared_ptr<EventFd>& eventFd() const;

 private:
  Napi::Value fd(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<EventFd> eventFd_;
};

}  // namespace vivarium

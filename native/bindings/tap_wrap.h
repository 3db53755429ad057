// NativeTap of lib/kvm/native.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "net/tap.h"

namespace vivarium {

class TapWrap : public Napi::ObjectWrap<TapWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit TapWrap(const Napi::CallbackInfo& info);

 private:
  // Throws Failure kClosed.
  Tap& tap() const;
  Napi::Value sourceId(const Napi::CallbackInfo& info);
  Napi::Value name(const Napi::CallbackInfo& info);
  Napi::Value setHeaderBytes(const Napi::CallbackInfo& info);
  Napi::Value setOffloads(const Napi::CallbackInfo& info);
  Napi::Value interfaceFlags(const Napi::CallbackInfo& info);
  Napi::Value mtuBytes(const Napi::CallbackInfo& info);
  Napi::Value setInterfaceFlags(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value changed(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<Tap> tap_;  // null after close()
};

}  // namespace vivarium

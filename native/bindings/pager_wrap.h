// NativePager of lib/kvm/native-pager.ts, and what this kernel offers.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "bindings/views.h"
#include "memory/pager.h"

namespace vivarium {

class PagerWrap : public Napi::ObjectWrap<PagerWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PagerWrap(const Napi::CallbackInfo& info);
  ~PagerWrap() override;

 private:
  // Throws Failure kClosed.
  Pager& pager() const;
  Napi::Value sourceId(const Napi::CallbackInfo& info);
  Napi::Value states(const Napi::CallbackInfo& info);
  Napi::Value guard(const Napi::CallbackInfo& info);
  Napi::Value fill(const Napi::CallbackInfo& info);
  Napi::Value noteTouched(const Napi::CallbackInfo& info);
  Napi::Value serve(const Napi::CallbackInfo& info);
  Napi::Value ensure(const Napi::CallbackInfo& info);
  Napi::Value prepare(const Napi::CallbackInfo& info);
  Napi::Value arm(const Napi::CallbackInfo& info);
  Napi::Value begin(const Napi::CallbackInfo& info);
  Napi::Value walk(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);
  Napi::Value status(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<Pager> pager_;  // null after close()
  Views views_;
};

// {features, step?, errno?}
Napi::Value userFaultSupport(const Napi::CallbackInfo& info);

}  // namespace vivarium

// NativeIoQueue of lib/kvm/native.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "bindings/views.h"
#include "io/io_queue.h"

namespace vivarium {

class IoQueueWrap : public Napi::ObjectWrap<IoQueueWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit IoQueueWrap(const Napi::CallbackInfo& info);

 private:
  // Throws Failure kClosed.
  IoQueue& queue() const;
  Napi::Value kind(const Napi::CallbackInfo& info);
  Napi::Value refusal(const Napi::CallbackInfo& info);
  Napi::Value sourceId(const Napi::CallbackInfo& info);
  Napi::Value area(const Napi::CallbackInfo& info);
  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value reap(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<IoQueue> queue_;  // null after close()
  Views views_;
};

}  // namespace vivarium

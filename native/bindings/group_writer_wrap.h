// NativeGroupWriter of lib/kvm/native-snapshot.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "snapshot/group_writer.h"

namespace vivarium {

class GroupWriterWrap : public Napi::ObjectWrap<GroupWriterWrap> {
 public:
  static constexpr napi_type_tag kTag{0x51f0a3c2b6de4d17, 0x8c1e9b7740a2f356};
  static constexpr const char* kClassName = "GroupWriter";
  static Napi::Function define(Napi::Env env);
  explicit GroupWriterWrap(const Napi::CallbackInfo& info);

 private:
  GroupWriter& writer() const;
  Napi::Value sourceId(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value copy(const Napi::CallbackInfo& info);
  Napi::Value offer(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value finish(const Napi::CallbackInfo& info);
  Napi::Value progress(const Napi::CallbackInfo& info);
  Napi::Value rows(const Napi::CallbackInfo& info);
  // A handle for a write intercept, which holds the writer as long as it may offer: after close() offers are dropped.
  Napi::Value sink(const Napi::CallbackInfo& info);
  Napi::Value fileBytes(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<GroupWriter> writer_;  // null after close()
};

}  // namespace vivarium

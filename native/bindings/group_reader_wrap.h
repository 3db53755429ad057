// NativeGroupReader of lib/kvm/native-snapshot.ts.
#pragma once

#include <memory>

#include "bindings/napi.h"
#include "snapshot/group_reader.h"

namespace vivarium {

class GroupReaderWrap : public Napi::ObjectWrap<GroupReaderWrap> {
 public:
  static constexpr napi_type_tag kTag{0x2be85d0d94c147aa, 0xb70c66f1e3589d24};
  static constexpr const char* kClassName = "GroupReader";
  static Napi::Function define(Napi::Env env);
  explicit GroupReaderWrap(const Napi::CallbackInfo& info);

 private:
  GroupReader& reader() const;
  Napi::Value sourceId(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value progress(const Napi::CallbackInfo& info);
  // A handle for a pager, which holds the reader as long as it may read.
  Napi::Value source(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<GroupReader> reader_;  // null after close()
};

}  // namespace vivarium

// Reading of arguments. Every type and bound is checked here once more, after lib/kvm, since a wrong one could lead
// outside of a mapping. What is returned points into JavaScript's buffers: use it before JavaScript runs again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bindings/napi.h"

namespace vivarium {

// A whole number from 0 to `maximum`, at most 2^53 - 1.
uint64_t integerArgument(const Napi::CallbackInfo& info, size_t index, const char* name, uint64_t maximum);
uint32_t u32Argument(const Napi::CallbackInfo& info, size_t index, const char* name);
bool booleanArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
std::string stringArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
// A bigint from 0 to 2^64 - 1.
uint64_t bigintArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
std::span<uint8_t> bytesArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
std::span<uint32_t> u32ArrayArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
std::span<uint64_t> u64ArrayArgument(const Napi::CallbackInfo& info, size_t index, const char* name);
inline bool absent(const Napi::CallbackInfo& info, size_t index) {
  return info.Length() <= index || info[index].IsUndefined();
}

// The same checks for a value that is no argument.
uint64_t integerValue(Napi::Value value, const char* name, uint64_t maximum);
uint64_t bigintValue(Napi::Value value, const char* name);

// A wrapped object of the class with this tag: anything else, and an object made by other means, is a TypeError.
void checkTag(Napi::Value value, const napi_type_tag& tag, const char* name, const char* className);
void setTag(Napi::Env env, Napi::Value object, const napi_type_tag& tag);

template <typename Wrap>
Wrap* wrapArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  checkTag(info[index], Wrap::kTag, name, Wrap::kClassName);
  return Wrap::Unwrap(info[index].template As<Napi::Object>());
}

Napi::Value toUint8Array(Napi::Env env, std::span<const uint8_t> bytes);
Napi::Value toUint32Array(Napi::Env env, std::span<const uint32_t> words);
Napi::Value toBigUint64Array(Napi::Env env, std::span<const uint64_t> words);

struct StructIoctl;
// The input of a structure ioctl, checked against the table's size, in zeroed and aligned storage.
class StructBuffer {
 public:
  StructBuffer(const Napi::CallbackInfo& info, size_t index, const StructIoctl& row);
  void* data() { return words_.data(); }
  Napi::Value toArray(Napi::Env env) const;

 private:
  size_t sizeBytes_;
  std::vector<uint64_t> words_;
};

}  // namespace vivarium

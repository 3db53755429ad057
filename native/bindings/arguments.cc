// See arguments.h.
#include "bindings/arguments.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/failure.h"
#include "kvm/ioctl_table.h"

namespace vivarium {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;

template <typename Element>
std::span<Element> typedArray(Napi::Value value, napi_typedarray_type wanted, const char* name, const char* typeName) {
  const std::string message = std::string(name) + ": a " + typeName + " is wanted";
  if (!value.IsTypedArray()) throwType(message);
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != wanted) {
    throwType(message);
  }
  // A detached array has no data.
  return data == nullptr ? std::span<Element>() : std::span<Element>(static_cast<Element*>(data), length);
}

template <typename Array, typename Element>
Napi::Value copyToArray(Napi::Env env, std::span<const Element> elements) {
  Array array = Array::New(env, elements.size());
  if (!elements.empty()) std::memcpy(array.Data(), elements.data(), elements.size_bytes());
  return array;
}

}  // namespace

uint64_t integerValue(Napi::Value value, const char* name, uint64_t maximum) {
  if (!value.IsNumber()) throwType(std::string(name) + ": a number is wanted");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0 && number <= kMaxSafeInteger) || number != std::floor(number) ||
      static_cast<uint64_t>(number) > maximum) {
    throwRange(std::string(name) + ": not a whole number from 0 to " + std::to_string(maximum));
  }
  return static_cast<uint64_t>(number);
}

uint64_t integerArgument(const Napi::CallbackInfo& info, size_t index, const char* name, uint64_t maximum) {
  return integerValue(info[index], name, maximum);
}

uint32_t u32Argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return static_cast<uint32_t>(integerArgument(info, index, name, std::numeric_limits<uint32_t>::max()));
}

bool booleanArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsBoolean()) throwType(std::string(name) + ": a boolean is wanted");
  return info[index].As<Napi::Boolean>().Value();
}

std::string stringArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (!info[index].IsString()) throwType(std::string(name) + ": a string is wanted");
  return info[index].As<Napi::String>().Utf8Value();
}

uint64_t bigintValue(Napi::Value value, const char* name) {
  if (!value.IsBigInt()) throwType(std::string(name) + ": a bigint is wanted");
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throwRange(std::string(name) + ": not from 0 to 2^64 - 1");
  return number;
}

uint64_t bigintArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return bigintValue(info[index], name);
}

std::span<uint8_t> bytesArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return typedArray<uint8_t>(info[index], napi_uint8_array, name, "Uint8Array");
}

std::span<uint32_t> u32ArrayArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return typedArray<uint32_t>(info[index], napi_uint32_array, name, "Uint32Array");
}

std::span<uint64_t> u64ArrayArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return typedArray<uint64_t>(info[index], napi_biguint64_array, name, "BigUint64Array");
}

void checkTag(Napi::Value value, const napi_type_tag& tag, const char* name, const char* className) {
  bool matches = false;
  if (!value.IsObject() || napi_check_object_type_tag(value.Env(), value, &tag, &matches) != napi_ok || !matches) {
    throwType(std::string(name) + ": a " + className + " is wanted");
  }
}

void setTag(Napi::Env env, Napi::Value object, const napi_type_tag& tag) {
  if (napi_type_tag_object(env, object, &tag) != napi_ok) throw Napi::Error::New(env);
}

Napi::Value toUint8Array(Napi::Env env, std::span<const uint8_t> bytes) {
  return copyToArray<Napi::Uint8Array>(env, bytes);
}

Napi::Value toUint32Array(Napi::Env env, std::span<const uint32_t> words) {
  return copyToArray<Napi::Uint32Array>(env, words);
}

Napi::Value toBigUint64Array(Napi::Env env, std::span<const uint64_t> words) {
  return copyToArray<Napi::BigUint64Array>(env, words);
}

StructBuffer::StructBuffer(const Napi::CallbackInfo& info, size_t index, const StructIoctl& row)
    : sizeBytes_(row.sizeBytes), words_((row.sizeBytes + 7) / 8) {
  if (absent(info, index)) {
    if (row.reads) throwType(std::string(row.name) + ": an input is wanted");
    return;
  }
  const auto input = bytesArgument(info, index, "input");
  if (input.size() != row.sizeBytes) {
    throwRange(std::string(row.name) + ": an input of " + std::to_string(row.sizeBytes) + " bytes is wanted, not of " +
               std::to_string(input.size()));
  }
  std::memcpy(words_.data(), input.data(), input.size());
}

Napi::Value StructBuffer::toArray(Napi::Env env) const {
  return toUint8Array(env, {reinterpret_cast<const uint8_t*>(words_.data()), sizeBytes_});
}

}  // namespace vivarium

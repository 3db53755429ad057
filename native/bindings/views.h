// ArrayBuffers over native memory. Each holds its mapping as long as JavaScript holds the buffer; detach() empties all
// of them (length 0) and lets the mapping go at once. Two buffers over one mapping are fine.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bindings/napi.h"
#include "core/mapping.h"

namespace vivarium {

class Views {
 public:
  explicit Views(Napi::Env env);
  ~Views();
  Views(const Views&) = delete;
  Views& operator=(const Views&) = delete;

  // [data, data + length) lies inside the mapping.
  Napi::Value create(const std::shared_ptr<Mapping>& mapping, uint8_t* data, size_t length);
  void detach();

 private:
  struct Hold {
    std::shared_ptr<Mapping> mapping;
    size_t unaccounted;  // bytes taken off V8's account of external memory, to be put back when V8 takes them off too
  };
  struct View {
    napi_ref weak;
    std::weak_ptr<Hold> hold;
  };
  static void finalize(napi_env env, void* data, void* hint);
  static void account(napi_env env, Hold& hold);
  void forgetCollected();

  napi_env env_;
  bool isStrict_;
  std::vector<View> views_;
  size_t tidyAt_ = 16;
};

// Defines a property that can't be changed, so that the buffer lives as long as the object.
void defineConstant(Napi::Object object, const char* name, Napi::Value value);

}  // namespace vivarium

// The symbols of the process: Node exports them, whether libuv is inside it or a library of the system.
#include "bindings/libuv.h"

#include <dlfcn.h>

#include <cstring>
#include <optional>

namespace vivarium {
namespace {

constexpr int kUvPoll = 8;  // UV_POLL of uv_handle_type; held against its name below

template <typename Function>
bool lookUp(const char* name, Function** to) {
  *to = reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
  return *to != nullptr;
}

std::optional<Libuv> lookUpAll() {
  Libuv uv{};
  const char* (*typeName)(int);
  size_t (*handleSize)(int);
  const bool all = lookUp("uv_handle_type_name", &typeName) && lookUp("uv_handle_size", &handleSize) &&
                   lookUp("uv_poll_init", &uv.pollInit) && lookUp("uv_poll_start", &uv.pollStart) &&
                   lookUp("uv_unref", &uv.unref) && lookUp("uv_close", &uv.close) &&
                   lookUp("uv_handle_get_data", &uv.getData) && lookUp("uv_handle_set_data", &uv.setData);
  if (!all) return std::nullopt;
  const char* name = typeName(kUvPoll);
  if (name == nullptr || std::strcmp(name, "poll") != 0) return std::nullopt;
  uv.pollBytes = handleSize(kUvPoll);
  return uv;
}

}  // namespace

const Libuv* Libuv::find() {
  static const std::optional<Libuv> found = lookUpAll();
  return found.has_value() ? &*found : nullptr;
}

}  // namespace vivarium

// What is needed of libuv, by its symbols: the headers that an addon is built with (node-api-headers) have no uv.h, and
// napi_get_uv_event_loop() gives a loop that nothing of Node-API can use. Only calls and constants that libuv promises
// to keep for all of 1.x; the size of a handle is asked for.
#pragma once

#include <cstddef>

struct uv_loop_s;

namespace vivarium {

struct Libuv {
  // Null where the process has no libuv of this kind.
  static const Libuv* find();

  // A handle is `size` bytes that belong to libuv until `closed` is called.
  size_t pollBytes;
  int (*pollInit)(uv_loop_s* loop, void* handle, int fd);
  int (*pollStart)(void* handle, int events, void (*ready)(void* handle, int status, int events));
  void (*unref)(void* handle);
  void (*close)(void* handle, void (*closed)(void* handle));
  void* (*getData)(const void* handle);
  void (*setData)(void* handle, void* data);

  static constexpr int kReadable = 1;  // UV_READABLE
};

}  // namespace vivarium

// See zstd.h.
#include "snapshot/zstd.h"

#include <dlfcn.h>

namespace vivarium {
namespace {

struct Library {
  void* (*createCCtx)() = nullptr;
  size_t (*freeCCtx)(void*) = nullptr;
  size_t (*compressCCtx)(void*, void*, size_t, const void*, size_t, int) = nullptr;
  void* (*createDCtx)() = nullptr;
  size_t (*freeDCtx)(void*) = nullptr;
  size_t (*decompressDCtx)(void*, void*, size_t, const void*, size_t) = nullptr;
  unsigned (*isError)(size_t) = nullptr;
  bool whole = false;

  Library() {
    // Never closed: contexts may live until the process ends.
    void* handle = ::dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return;
    whole = find(handle, "ZSTD_createCCtx", createCCtx) && find(handle, "ZSTD_freeCCtx", freeCCtx) &&
            find(handle, "ZSTD_compressCCtx", compressCCtx) && find(handle, "ZSTD_createDCtx", createDCtx) &&
            find(handle, "ZSTD_freeDCtx", freeDCtx) && find(handle, "ZSTD_decompressDCtx", decompressDCtx) &&
            find(handle, "ZSTD_isError", isError);
  }

  template <typename Function>
  static bool find(void* handle, const char* name, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(handle, name));
    return function != nullptr;
  }
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

}  // namespace

bool zstdAvailable() {
  return library().whole;
}

ZstdCompressor::ZstdCompressor(int level)
    : context_(zstdAvailable() ? library().createCCtx() : nullptr), level_(level) {}

ZstdCompressor::~ZstdCompressor() {
  if (context_ != nullptr) library().freeCCtx(context_);
}

size_t ZstdCompressor::compress(uint8_t* into, size_t capacity, const uint8_t* from, size_t length) {
  if (context_ == nullptr) return 0;
  const size_t stored = library().compressCCtx(context_, into, capacity, from, length, level_);
  return library().isError(stored) != 0 ? 0 : stored;
}

ZstdDecompressor::ZstdDecompressor() : context_(zstdAvailable() ? library().createDCtx() : nullptr) {}

ZstdDecompressor::~ZstdDecompressor() {
  if (context_ != nullptr) library().freeDCtx(context_);
}

bool ZstdDecompressor::decompress(uint8_t* into, size_t length, const uint8_t* from, size_t stored) {
  if (context_ == nullptr) return false;
  return library().decompressDCtx(context_, into, length, from, stored) == length;
}

}  // namespace vivarium

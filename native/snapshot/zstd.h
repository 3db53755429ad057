// zstd as the machine has it: libzstd.so.1 by dlopen (its stable interface, zstd.h), since an addon that is built on
// the spot can't ask for headers. Contexts are one thread's at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vivarium {

// Whether the library is there with all that is used of it. Looked up once a process.
bool zstdAvailable();

class ZstdCompressor {
 public:
  explicit ZstdCompressor(int level);
  ~ZstdCompressor();
  ZstdCompressor(const ZstdCompressor&) = delete;
  ZstdCompressor& operator=(const ZstdCompressor&) = delete;
  // Bytes of the frame, or 0 when it does not fit into `capacity`.
  size_t compress(uint8_t* into, size_t capacity, const uint8_t* from, size_t length);

 private:
  void* context_;
  int level_;
};

class ZstdDecompressor {
 public:
  ZstdDecompressor();
  ~ZstdDecompressor();
  ZstdDecompressor(const ZstdDecompressor&) = delete;
  ZstdDecompressor& operator=(const ZstdDecompressor&) = delete;
  // True when the frame is sound and holds exactly `length` bytes. It writes nothing beyond them.
  bool decompress(uint8_t* into, size_t length, const uint8_t* from, size_t stored);

 private:
  void* context_;
};

}  // namespace vivarium

// A memory mapping that unmaps itself. Shared by everything that may still touch it: memory slots, threads, and the
// ArrayBuffers over it; it goes with the last of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/counters.h"

namespace vivarium {

class Mapping {
 public:
  // Zeroed private memory, never inherited by a child process. `alignment` is a power of two of at least a page.
  static std::shared_ptr<Mapping> anonymous(const CountersPtr& counters, size_t sizeBytes, size_t alignment = 4096);
  // A shared mapping of a file descriptor from offset 0, at the given alignment.
  static std::shared_ptr<Mapping> shared(const CountersPtr& counters, int fd, size_t sizeBytes,
                                         size_t alignment = 4096);

  Mapping(const CountersPtr& counters, void* address, size_t sizeBytes);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* data() const { return static_cast<uint8_t*>(address_); }
  size_t size() const { return sizeBytes_; }

 private:
  void* address_;
  size_t sizeBytes_;
  Counted counted_;
};

}  // namespace vivarium

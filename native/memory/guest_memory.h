// One mapping of guest memory and, beside it, the dirty bitmap of user space (one bit for each page of 4 KiB).
// It knows no guest physical address: lib/memory and the memory slots place it.
#pragma once

#include <cstdint>
#include <memory>

#include "core/fd.h"
#include "core/mapping.h"
#include "memory/group_store.h"

namespace vivarium {

enum class Backing { kAnonymous, kMemfd, kStore };

class GuestMemory {
 public:
  // `sizeBytes` is a multiple of the page size, above 0.
  GuestMemory(const CountersPtr& counters, uint64_t sizeBytes, Backing backing, bool hugePages);
  // Memory of a clone, of the store's size: what others have is shared until it is written (kStore). A pager must serve
  // it before it is touched, since the store may still be empty.
  GuestMemory(const CountersPtr& counters, std::shared_ptr<GroupStore> store, bool hugePages);
  Backing backing() const { return backing_; }
  // Null unless kStore.
  const std::shared_ptr<GroupStore>& store() const { return store_; }
  uint64_t sizeBytes() const { return mapping_->size(); }
  int fd() const { return fd_.get(); }
  const std::shared_ptr<Mapping>& mapping() const { return mapping_; }
  const std::shared_ptr<Mapping>& dirtyBitmap() const { return dirtyBitmap_; }
  // Bytes of the bitmap in use: whole 64-bit words.
  uint64_t dirtyBitmapBytes() const { return (sizeBytes() / kPageBytes + 63) / 64 * 8; }

  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kMaxBytes = uint64_t{1} << 46;

 private:
  Backing backing_;
  std::shared_ptr<GroupStore> store_;
  Fd fd_;
  std::shared_ptr<Mapping> mapping_;
  std::shared_ptr<Mapping> dirtyBitmap_;
};

}  // namespace vivarium

// Guest memory starts on a huge page of the host, so that a slot at an aligned gpa can use them. A memfd is sealed
// against resizing: a file that shrinks under a mapping would end the process by SIGBUS.
#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

GuestMemory::GuestMemory(const CountersPtr& counters, uint64_t sizeBytes, Backing backing, bool hugePages)
    : backing_(backing) {
  const size_t alignment = sizeBytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  if (backing == Backing::kMemfd) {
    fd_ = Fd(::memfd_create("vivarium-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd_.valid()) throwSyscall("memfd_create", errno);
    if (::ftruncate(fd_.get(), static_cast<off_t>(sizeBytes)) < 0) {
      throwSyscall("ftruncate", errno, std::to_string(sizeBytes) + " bytes");
    }
    if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
      throwSyscall("fcntl", errno, "F_ADD_SEALS");
    }
    mapping_ = Mapping::shared(counters, fd_.get(), sizeBytes, alignment);
  } else {
    mapping_ = Mapping::anonymous(counters, sizeBytes, alignment);
  }
  if (hugePages) ::madvise(mapping_->data(), sizeBytes, MADV_HUGEPAGE);  // advice: a refusal changes nothing
  dirtyBitmap_ = Mapping::anonymous(counters, dirtyBitmapBytes());
}

// What is zero in the snapshot stays anonymous: a hole of the store would be filled by the first clone that reads it.
GuestMemory::GuestMemory(const CountersPtr& counters, std::shared_ptr<GroupStore> store, bool hugePages)
    : GuestMemory(counters, store->sizeBytes(), Backing::kAnonymous, hugePages) {
  for (const GroupRun& run : store->runs()) {
    const uint64_t offset = uint64_t{run.first} * kGroupBytes;
    const size_t bytes = std::min(uint64_t{run.count} * kGroupBytes, sizeBytes() - offset);
    uint8_t* const at = mapping_->data() + offset;
    constexpr int kFlags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;
    if (::mmap(at, bytes, PROT_READ | PROT_WRITE, kFlags, store->fd(), static_cast<off_t>(offset)) == MAP_FAILED) {
      throwSyscall("mmap", errno, std::to_string(bytes) + " bytes of the clones' store");
    }
    ::madvise(at, bytes, MADV_DONTFORK);
  }
  backing_ = Backing::kStore;
  store_ = std::move(store);
}

}  // namespace vivarium

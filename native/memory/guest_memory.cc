// Guest memory starts on a huge page of the host, so that a slot at an aligned gpa can use them. A memfd is sealed
// against resizing: a file that shrinks under a mapping would end the process by SIGBUS.
#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

GuestMemory::GuestMemory(const CountersPtr& counters, uint64_t sizeBytes, Backing backing, bool hugePages) {
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

}  // namespace vivarium

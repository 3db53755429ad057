// mmap with alignment: a larger range is reserved and its margins given back, so that guest memory starts on a huge
// page.
#include "core/mapping.h"

#include <sys/mman.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr size_t kPageBytes = 4096;

void* mapAligned(int fd, size_t sizeBytes, size_t alignment, int flags) {
  if (alignment <= kPageBytes) {
    void* address = ::mmap(nullptr, sizeBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (address == MAP_FAILED) throwSyscall("mmap", errno, std::to_string(sizeBytes) + " bytes");
    return address;
  }
  const size_t reservedBytes = sizeBytes + alignment;
  void* reserved = ::mmap(nullptr, reservedBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throwSyscall("mmap", errno, std::to_string(sizeBytes) + " bytes");
  const uintptr_t start = reinterpret_cast<uintptr_t>(reserved);
  const uintptr_t aligned = (start + alignment - 1) & ~(alignment - 1);
  void* address = ::mmap(reinterpret_cast<void*>(aligned), sizeBytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    ::munmap(reserved, reservedBytes);
    throwSyscall("mmap", error, std::to_string(sizeBytes) + " bytes");
  }
  if (aligned > start) ::munmap(reserved, aligned - start);
  const uintptr_t end = aligned + ((sizeBytes + kPageBytes - 1) & ~(kPageBytes - 1));
  if (start + reservedBytes > end) ::munmap(reinterpret_cast<void*>(end), start + reservedBytes - end);
  return address;
}

}  // namespace

Mapping::Mapping(const CountersPtr& counters, void* address, size_t sizeBytes)
    : address_(address), sizeBytes_(sizeBytes), counted_(counters, &Counters::mappings) {}

Mapping::~Mapping() {
  ::munmap(address_, sizeBytes_);
}

std::shared_ptr<Mapping> Mapping::anonymous(const CountersPtr& counters, size_t sizeBytes, size_t alignment) {
  void* address = mapAligned(-1, sizeBytes, alignment, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  ::madvise(address, sizeBytes, MADV_DONTFORK);  // a child process has no use for it, and fork would copy page tables
  return std::make_shared<Mapping>(counters, address, sizeBytes);
}

std::shared_ptr<Mapping> Mapping::shared(const CountersPtr& counters, int fd, size_t sizeBytes, size_t alignment) {
  void* address = mapAligned(fd, sizeBytes, alignment, MAP_SHARED | MAP_NORESERVE);
  ::madvise(address, sizeBytes, MADV_DONTFORK);
  return std::make_shared<Mapping>(counters, address, sizeBytes);
}

}  // namespace vivarium

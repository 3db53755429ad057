// The binary statistics format of Documentation/virt/kvm/api.rst, 4.133: a header, descriptors of equal size, values.
#include "kvm/stats.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/failure.h"

namespace vivarium {
namespace {

// struct kvm_stats_desc without its name (the header's flexible array has another offset in C++ than in C).
struct Descriptor {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucketSize;
};
static_assert(sizeof(Descriptor) == 16);

std::vector<uint8_t> readAt(int fd, uint64_t offset, size_t length) {
  std::vector<uint8_t> bytes(length);
  size_t done = 0;
  while (done < length) {
    const ssize_t got = ::pread(fd, bytes.data() + done, length - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throwSyscall("pread", errno, "KVM statistics");
    if (got == 0) throwSyscall("pread", EIO, "KVM statistics end early");
    done += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

Fd openStats(int fd) {
  const int statsFd = ioctlRetry(fd, KVM_GET_STATS_FD, 0ul);
  if (statsFd < 0 && errno != ENOTTY && errno != EINVAL) throwIoctl("KVM_GET_STATS_FD", errno);
  return Fd(statsFd);
}

std::vector<Stat> readStats(const Fd& statsFd) {
  if (!statsFd.valid()) throw Failure(FailureKind::kCapability, "KVM_CAP_BINARY_STATS_FD", ENOTTY);
  kvm_stats_header header;
  const auto headerBytes = readAt(statsFd.get(), 0, sizeof header);
  std::memcpy(&header, headerBytes.data(), sizeof header);
  if (header.name_size > 4096 || header.num_desc > 65536) throwSyscall("pread", EPROTO, "KVM statistics header");

  const size_t stride = sizeof(Descriptor) + header.name_size;
  const auto table = readAt(statsFd.get(), header.desc_offset, stride * header.num_desc);
  std::vector<Descriptor> descriptors(header.num_desc);
  size_t dataBytes = 0;
  for (size_t row = 0; row < header.num_desc; row++) {
    std::memcpy(&descriptors[row], table.data() + row * stride, sizeof(Descriptor));
    dataBytes = std::max(dataBytes, descriptors[row].offset + descriptors[row].size * sizeof(uint64_t));
  }
  const auto data = readAt(statsFd.get(), header.data_offset, dataBytes);

  std::vector<Stat> stats(header.num_desc);
  for (size_t row = 0; row < header.num_desc; row++) {
    const char* name = reinterpret_cast<const char*>(table.data() + row * stride + sizeof(Descriptor));
    stats[row].name.assign(name, ::strnlen(name, header.name_size));
    stats[row].values.resize(descriptors[row].size);
    std::memcpy(stats[row].values.data(), data.data() + descriptors[row].offset,
                descriptors[row].size * sizeof(uint64_t));
  }
  return stats;
}

}  // namespace vivarium

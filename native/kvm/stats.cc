// The binary statistics format of Documentation/virt/kvm/api.rst, 4.133: a header, descriptors of equal size, values.
#include "kvm/stats.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
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

struct Row {
  std::string name;
  size_t offset;  // from the beginning of the data
  size_t size;    // in values
};

// What there is, and where.
struct Table {
  explicit Table(int fd) {
    kvm_stats_header header;
    const auto headerBytes = readAt(fd, 0, sizeof header);
    std::memcpy(&header, headerBytes.data(), sizeof header);
    if (header.name_size > 4096 || header.num_desc > 65536) throwSyscall("pread", EPROTO, "KVM statistics header");
    dataOffset = header.data_offset;
    const size_t stride = sizeof(Descriptor) + header.name_size;
    const auto bytes = readAt(fd, header.desc_offset, stride * header.num_desc);
    rows.reserve(header.num_desc);
    for (size_t index = 0; index < header.num_desc; index++) {
      const uint8_t* const at = bytes.data() + index * stride;
      Descriptor descriptor;
      std::memcpy(&descriptor, at, sizeof descriptor);
      const char* const name = reinterpret_cast<const char*>(at + sizeof descriptor);
      rows.push_back(Row{std::string(name, ::strnlen(name, header.name_size)), descriptor.offset, descriptor.size});
    }
  }

  uint64_t dataOffset;
  std::vector<Row> rows;
};

}  // namespace

Fd openStats(int fd) {
  const int statsFd = ioctlRetry(fd, KVM_GET_STATS_FD, 0ul);
  if (statsFd < 0 && errno != ENOTTY && errno != EINVAL) throwIoctl("KVM_GET_STATS_FD", errno);
  return Fd(statsFd);
}

std::vector<Stat> readStats(const Fd& statsFd) {
  if (!statsFd.valid()) throw Failure(FailureKind::kCapability, "KVM_CAP_BINARY_STATS_FD", ENOTTY);
  const Table table(statsFd.get());
  size_t dataBytes = 0;
  for (const Row& row : table.rows) dataBytes = std::max(dataBytes, row.offset + row.size * sizeof(uint64_t));
  const auto data = readAt(statsFd.get(), table.dataOffset, dataBytes);

  std::vector<Stat> stats;
  stats.reserve(table.rows.size());
  for (const Row& row : table.rows) {
    Stat& stat = stats.emplace_back(Stat{row.name, std::vector<uint64_t>(row.size)});
    std::memcpy(stat.values.data(), data.data() + row.offset, row.size * sizeof(uint64_t));
  }
  return stats;
}

std::optional<uint64_t> findStat(const Fd& statsFd, std::string_view name) {
  if (!statsFd.valid()) return std::nullopt;
  const Table table(statsFd.get());
  const auto found = std::ranges::find(table.rows, name, &Row::name);
  if (found == table.rows.end() || found->size == 0) return std::nullopt;
  return table.dataOffset + found->offset;
}

uint64_t readStat(const Fd& statsFd, uint64_t place) {
  uint64_t value;
  const auto bytes = readAt(statsFd.get(), place, sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace vivarium

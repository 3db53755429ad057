// Counted lists. KVM takes fewer than 256 MSRs a call (MAX_IO_MSRS in arch/x86/kvm/x86.c), and returns how many it
// processed before the first that it refused: that is how the exact index is known.
#include "kvm/lists.h"

#include <linux/kvm.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/failure.h"
#include "kvm/requests.h"

namespace vivarium {
namespace {

constexpr size_t kMsrsPerCall = 255;
constexpr size_t kMaxCpuidRows = 256;  // KVM_MAX_CPUID_ENTRIES in arch/x86/include/asm/kvm_host.h

static_assert(sizeof(kvm_cpuid_entry2) == 40 && offsetof(kvm_cpuid_entry2, edx) == 24);
static_assert(sizeof(kvm_msr_entry) == 16 && offsetof(kvm_msr_entry, data) == 8);

std::string msrName(uint32_t index) {
  char text[24];
  std::snprintf(text, sizeof text, "msr 0x%x", index);
  return text;
}

// A kernel structure that ends in an array without a size, in aligned storage that is large enough.
template <typename Header, typename Entry>
class List {
 public:
  explicit List(size_t entries)
      : words_((sizeof(Header) + entries * sizeof(Entry) + sizeof(uint64_t) - 1) / sizeof(uint64_t)) {}
  Header* header() { return reinterpret_cast<Header*>(words_.data()); }
  Entry* entries() { return reinterpret_cast<Entry*>(reinterpret_cast<uint8_t*>(words_.data()) + sizeof(Header)); }

 private:
  std::vector<uint64_t> words_;
};

struct CountHeader {  // struct kvm_msrs and struct kvm_cpuid2 without their arrays
  uint32_t count;
  uint32_t padding;
};
static_assert(sizeof(CountHeader) == 8);

}  // namespace

std::vector<uint32_t> readCpuid(int fd, unsigned long request, const char* name) {
  size_t capacity = 64;
  for (;;) {
    List<CountHeader, kvm_cpuid_entry2> list(capacity);
    list.header()->count = static_cast<uint32_t>(capacity);
    if (ioctlRetry(fd, request, list.header()) < 0) {
      if (errno == E2BIG && capacity < 65536) {
        capacity *= 2;
        continue;
      }
      throwIoctl(name, errno);
    }
    const size_t count = std::min<size_t>(list.header()->count, capacity);
    std::vector<uint32_t> rows;
    rows.reserve(count * kCpuidRowWords);
    for (size_t row = 0; row < count; row++) {
      const kvm_cpuid_entry2& entry = list.entries()[row];
      rows.insert(rows.end(), {entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx});
    }
    return rows;
  }
}

void writeCpuid(int fd, std::span<const uint32_t> rows) {
  if (rows.size() % kCpuidRowWords != 0) throwRange("rows: not a whole number of rows of seven words");
  const size_t count = rows.size() / kCpuidRowWords;
  if (count > kMaxCpuidRows) throwRange("rows: more than 256 CPUID entries");
  List<CountHeader, kvm_cpuid_entry2> list(count);
  list.header()->count = static_cast<uint32_t>(count);
  for (size_t row = 0; row < count; row++) {
    const uint32_t* words = rows.data() + row * kCpuidRowWords;
    kvm_cpuid_entry2& entry = list.entries()[row];
    entry.function = words[0];
    entry.index = words[1];
    entry.flags = words[2];
    entry.eax = words[3];
    entry.ebx = words[4];
    entry.ecx = words[5];
    entry.edx = words[6];
  }
  ioctlChecked(fd, request::kSetCpuid2, list.header(), "KVM_SET_CPUID2");
}

std::vector<uint32_t> readMsrIndices(int fd, unsigned long request, const char* name) {
  uint32_t capacity = 0;
  for (;;) {
    std::vector<uint32_t> list(1 + capacity);
    list[0] = capacity;
    if (ioctlRetry(fd, request, list.data()) < 0) {
      // With too small a list KVM writes the number that it has.
      if (errno == E2BIG && list[0] > capacity) {
        capacity = list[0];
        continue;
      }
      throwIoctl(name, errno);
    }
    const uint32_t count = std::min(list[0], capacity);
    return {list.begin() + 1, list.begin() + 1 + count};
  }
}

std::vector<uint64_t> readMsrs(int fd, std::span<const uint32_t> indices) {
  std::vector<uint64_t> values;
  values.reserve(indices.size());
  for (size_t first = 0; first < indices.size(); first += kMsrsPerCall) {
    const size_t count = std::min(kMsrsPerCall, indices.size() - first);
    List<CountHeader, kvm_msr_entry> list(count);
    list.header()->count = static_cast<uint32_t>(count);
    for (size_t entry = 0; entry < count; entry++) list.entries()[entry].index = indices[first + entry];
    const int done = ioctlChecked(fd, request::kGetMsrs, list.header(), "KVM_GET_MSRS");
    if (static_cast<size_t>(done) < count) {
      throwIoctl("KVM_GET_MSRS", EINVAL, msrName(indices[first + static_cast<size_t>(done)]));
    }
    for (size_t entry = 0; entry < count; entry++) values.push_back(list.entries()[entry].data);
  }
  return values;
}

void writeMsrs(int fd, std::span<const uint32_t> indices, std::span<const uint64_t> values) {
  if (indices.size() != values.size()) throwRange("values: not as many values as indices");
  for (size_t first = 0; first < indices.size(); first += kMsrsPerCall) {
    const size_t count = std::min(kMsrsPerCall, indices.size() - first);
    List<CountHeader, kvm_msr_entry> list(count);
    list.header()->count = static_cast<uint32_t>(count);
    for (size_t entry = 0; entry < count; entry++) {
      list.entries()[entry].index = indices[first + entry];
      list.entries()[entry].data = values[first + entry];
    }
    const int done = ioctlChecked(fd, request::kSetMsrs, list.header(), "KVM_SET_MSRS");
    if (static_cast<size_t>(done) < count) {
      throwIoctl("KVM_SET_MSRS", EINVAL, msrName(indices[first + static_cast<size_t>(done)]));
    }
  }
}

}  // namespace vivarium

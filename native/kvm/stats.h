// Reads what KVM_GET_STATS_FD offers: every counter of a VM or of a vCPU by its name.
// The descriptor of it is opened when the object is made, so that counters can be read while a vCPU runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"

namespace vivarium {

struct Stat {
  std::string name;
  // One value, or the buckets of a histogram.
  std::vector<uint64_t> values;
};

// An invalid Fd where this KVM has no such statistics. @throws Failure kIoctl when there is no room for a descriptor.
Fd openStats(int fd);

// @throws Failure kCapability when `statsFd` is not valid, kSyscall when it can't be read.
std::vector<Stat> readStats(const Fd& statsFd);

// Where the first value of one stands, which stays so for the descriptor's life, for readStat(); nothing where this KVM
// has none of that name. @throws Failure kSyscall
std::optional<uint64_t> findStat(const Fd& statsFd, std::string_view name);
uint64_t readStat(const Fd& statsFd, uint64_t place);

}  // namespace vivarium

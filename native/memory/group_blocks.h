// Blocks of groups as large as a huge page of the host: what is put in, mapped or left alone in one piece.
#pragma once

#include <cstdint>
#include <vector>

#include "snapshot/group_source.h"

namespace vivarium {

// Groups that follow one another.
struct GroupRun {
  uint32_t first;
  uint32_t count;
};

constexpr uint64_t kBlockBytes = 2 << 20;
constexpr uint32_t kBlockGroups = kBlockBytes / kGroupBytes;

// The groups of a source in runs of whole blocks, without those in which everything is zero: untouched memory is that
// by itself. The number of runs is bounded, since each is a mapping of its own to the kernel: short runs of zeros are
// left in where there are too many.
std::vector<GroupRun> runsWithData(const GroupSource& source);

}  // namespace vivarium

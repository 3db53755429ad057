// See group_blocks.h.
#include "memory/group_blocks.h"

#include <algorithm>

namespace vivarium {
namespace {

constexpr size_t kMaxRuns = 256;  // of the 65,530 mappings that a process may have by default

bool hasData(const GroupSource& source, uint32_t first, uint32_t end) {
  for (uint32_t group = first; group < end; group++) {
    if (!source.knownZero(group)) return true;
  }
  return false;
}

// Where less than so many groups lie between two runs, they become one.
std::vector<GroupRun> joined(const std::vector<GroupRun>& runs, uint32_t lessThan) {
  std::vector<GroupRun> fewer;
  for (const GroupRun& run : runs) {
    if (!fewer.empty() && run.first - (fewer.back().first + fewer.back().count) < lessThan) {
      fewer.back().count = run.first + run.count - fewer.back().first;
    } else {
      fewer.push_back(run);
    }
  }
  return fewer;
}

}  // namespace

std::vector<GroupRun> runsWithData(const GroupSource& source) {
  const auto groups = static_cast<uint32_t>(source.groups());
  std::vector<GroupRun> runs;
  for (uint32_t first = 0; first < groups; first += kBlockGroups) {
    const uint32_t end = std::min(first + kBlockGroups, groups);
    if (hasData(source, first, end)) runs.push_back({first, end - first});
  }
  for (uint32_t lessThan = kBlockGroups;; lessThan *= 2) {
    runs = joined(runs, lessThan);
    if (runs.size() <= kMaxRuns) return runs;
  }
}

}  // namespace vivarium

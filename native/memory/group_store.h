// What clones of one snapshot share: its groups in a memfd that each of them maps privately. A group is read and
// checked once, by whichever clone needs it first, and gets in whole; a guest that writes gets a page of its own from
// the kernel. Nothing but this class writes to the memfd, which is sealed when all of it is there.
//
//   ABSENT ---claim---> COMING ---read, checked, written---> HELD, or ZERO (nothing is kept)
//      ^                   |
//      +-----failed--------+   the others that waited for it try by themselves: each clone fails by its own reading
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/counters.h"
#include "core/fd.h"
#include "memory/group_blocks.h"
#include "snapshot/group_source.h"

namespace vivarium {

class GroupStore {
 public:
  // Of `sizeBytes`, in as many groups as the source has: BadArgument otherwise. Throws Failure kSyscall.
  GroupStore(const CountersPtr& counters, const GroupSource& source, uint64_t sizeBytes);

  int fd() const { return fd_.get(); }
  uint64_t sizeBytes() const { return sizeBytes_; }
  // What clones map of it; the rest is zero and their own.
  const std::vector<GroupRun>& runs() const { return runs_; }

  // Any thread. Sees to it that the group is in the memfd (kData) or known to be zero (kZero); else tells why it can't
  // be had. `scratch` is kGroupBytes. It may wait for another clone that reads the same group.
  GroupReadResult bring(uint64_t group, GroupSource& source, uint8_t* scratch);

  struct Status {
    uint64_t groups = 0;  // that clones map
    uint64_t held = 0;    // of those, in the memfd
    uint64_t taken = 0;   // given to a clone without reading
    bool sealed = false;
  };
  Status status();

 private:
  enum class State : uint8_t { kAbsent, kComing, kHeld, kZero };

  int write(uint64_t group, const uint8_t* bytes) const;
  void settle(uint64_t group, State state);

  const uint64_t sizeBytes_;
  const std::vector<GroupRun> runs_;
  Fd fd_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<State> states_;
  Status status_;
  uint64_t absent_ = 0;  // of the groups that clones map
  Counted counted_;
};

}  // namespace vivarium

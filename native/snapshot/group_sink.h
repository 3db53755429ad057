// Where groups of guest memory go when they are saved: the write intercept hands them over, the snapshot's writer takes
// them.
#pragma once

#include <cstdint>

namespace vivarium {

// Guest memory in a snapshot is told in groups: 64 KiB, aligned, by offset into the one mapping of guest memory.
constexpr uint64_t kGroupBytes = 64 << 10;

class GroupSink {
 public:
  virtual ~GroupSink() = default;
  // Takes over a copy of the group's bytes (the last group of a mapping may be shorter: the rest of the copy is zero),
  // each group once. Called on the pager's and the walker's thread, never on JavaScript's. It copies or queues,
  // compresses later, and never waits: false when there is no room now; then `room()` is waited for by the caller.
  // Errors are the sink's to keep and to tell.
  virtual bool offer(uint64_t group, const uint8_t* bytes) = 0;
  // Waits, at most `timeoutNs`, until offer() may succeed again, or the sink has failed (then offers are taken and
  // dropped).
  virtual void room(uint64_t timeoutNs) = 0;
};

}  // namespace vivarium

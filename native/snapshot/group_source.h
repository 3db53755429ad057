// Where groups of guest memory come from when a machine is restored: the pager asks, the snapshot's reader answers.
#pragma once

#include <cstdint>

#include "snapshot/group_sink.h"

namespace vivarium {

struct GroupReadResult {
  enum class Kind : uint8_t { kData, kZero, kShortRead, kChecksum, kDecompress, kSystem };
  Kind kind = Kind::kData;
  // Of what failed: which file of the chain, the offset in it, and the errno of kSystem.
  uint32_t file = 0;
  uint64_t fileOffset = 0;
  int errnoNumber = 0;

  bool failed() const { return kind != Kind::kData && kind != Kind::kZero; }
};

class GroupSource {
 public:
  virtual ~GroupSource() = default;
  virtual uint64_t groups() const = 0;
  // Whether a group is known to be zero without reading it.
  virtual bool knownZero(uint64_t group) const {
    (void)group;
    return false;
  }
  // Reads one group whole into `into` (kGroupBytes; untouched for kZero), checked. Any thread, several at once; it
  // waits for the file alone. One attempt: who asks decides whether to ask again.
  virtual GroupReadResult read(uint64_t group, uint8_t* into) = 0;
};

}  // namespace vivarium

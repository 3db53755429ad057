// How one group of guest memory stands in a snapshot's files: the row that the writer fills in and the reader executes
// (GroupRow of lib/kvm/native-snapshot.ts; docs/snapshot-format.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "snapshot/group_sink.h"

namespace vivarium {

enum class GroupCodec : uint8_t {
  kZero = 0,    // nothing is stored
  kRaw = 1,     // kGroupBytes bytes
  kZstd = 2,    // one zstd frame of exactly kGroupBytes
  kSame = 3,    // as the earlier group whose number is in `offset`, which is raw or zstd
  kParent = 4,  // as in the parent
  kNone = 255,  // never written: no row of a finished file
};

// Little endian.
struct GroupRow {
  uint64_t offset = 0;
  uint32_t storedBytes = 0;
  uint32_t storedCrc = 0;
  uint32_t contentCrc = 0;  // of the kGroupBytes bytes
  uint16_t file = 0;        // for the reader: which of its files
  GroupCodec codec = GroupCodec::kNone;
  uint8_t reserved = 0;
};
static_assert(sizeof(GroupRow) == 24);

bool isZero(const uint8_t* bytes, size_t length);
// CRC-32C of kGroupBytes zeros.
uint32_t zeroGroupCrc();

}  // namespace vivarium

// One request of file input or output, as JavaScript writes it into the area that both sides share (IoRecord, IoPiece
// and IoCompletion of lib/kvm/native.ts), and as an executor takes it after the queue has checked it.
#pragma once

#include <fcntl.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace vivarium {

enum class IoOp : uint32_t { kRead = 0, kWrite = 1, kSync = 2, kPunchHole = 3, kZeroRange = 4 };
constexpr uint32_t kIoOps = 5;

struct IoRecord {
  uint32_t op;
  int32_t fd;
  uint64_t offset;
  uint64_t lengthBytes;  // of a punched hole or a zeroed range
  uint32_t firstPiece;   // in the area's pieces
  uint32_t pieceCount;
  uint32_t tag;
  uint32_t reserved;
};
static_assert(sizeof(IoRecord) == 40);

// A piece of the mapping.
struct IoPiece {
  uint64_t offset;
  uint64_t lengthBytes;
};
static_assert(sizeof(IoPiece) == 16);

struct IoCompletion {
  uint32_t tag;
  int32_t result;  // bytes moved, or a negated errno
};
static_assert(sizeof(IoCompletion) == 8);

struct IoRequest {
  IoOp op;
  int fd;
  uint64_t offset;
  uint64_t lengthBytes;
  uint32_t tag;
  std::span<const iovec> pieces;  // valid while it is handed over, no longer
};

// fallocate's mode (linux/falloc.h).
inline int allocateMode(IoOp op) {
  return FALLOC_FL_KEEP_SIZE | (op == IoOp::kPunchHole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

}  // namespace vivarium

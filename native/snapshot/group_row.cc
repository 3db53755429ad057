// See group_row.h.
#include "snapshot/group_row.h"

#include <cstring>
#include <vector>

#include "snapshot/crc32c.h"

namespace vivarium {

bool isZero(const uint8_t* bytes, size_t length) {
  constexpr size_t kStep = 64;
  size_t at = 0;
  for (; at + kStep <= length; at += kStep) {
    uint64_t words[kStep / 8];
    std::memcpy(words, bytes + at, kStep);
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    if (any != 0) return false;
  }
  for (; at < length; at++) {
    if (bytes[at] != 0) return false;
  }
  return true;
}

uint32_t zeroGroupCrc() {
  static const uint32_t crc = crc32c(std::vector<uint8_t>(kGroupBytes).data(), kGroupBytes);
  return crc;
}

}  // namespace vivarium

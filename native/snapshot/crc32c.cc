// See crc32c.h. The instruction has a latency of three cycles and can start one each cycle, so three lanes run side by
// side; a table that moves a CRC over one lane's length of zeros joins them.
#include "snapshot/crc32c.h"

#include <array>
#include <cstring>

namespace vivarium {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr size_t kLaneBytes = 1024;

using Table = std::array<uint32_t, 256>;

constexpr Table makeByteTable() {
  Table table{};
  for (uint32_t index = 0; index < 256; index++) {
    uint32_t value = index;
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[index] = value;
  }
  return table;
}

constexpr Table kByteTable = makeByteTable();

// What a CRC register becomes when kLaneBytes zero bytes follow, by each of its bytes: the step is linear.
struct Shift {
  std::array<Table, 4> tables{};

  Shift() {
    for (uint32_t byte = 0; byte < 4; byte++) {
      for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value << (8 * byte);
        for (size_t count = 0; count < kLaneBytes; count++) crc = (crc >> 8) ^ kByteTable[crc & 0xff];
        tables[byte][value] = crc;
      }
    }
  }

  uint32_t operator()(uint32_t crc) const {
    return tables[0][crc & 0xff] ^ tables[1][(crc >> 8) & 0xff] ^ tables[2][(crc >> 16) & 0xff] ^ tables[3][crc >> 24];
  }
};

inline uint64_t wordAt(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

__attribute__((target("sse4.2"))) uint32_t byInstruction(const uint8_t* bytes, size_t length) {
  static const Shift shift;
  uint64_t crc = 0xffffffffu;
  for (; length >= 3 * kLaneBytes; length -= 3 * kLaneBytes, bytes += 3 * kLaneBytes) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t at = 0; at < kLaneBytes; at += 8) {
      crc = __builtin_ia32_crc32di(crc, wordAt(bytes + at));
      second = __builtin_ia32_crc32di(second, wordAt(bytes + kLaneBytes + at));
      third = __builtin_ia32_crc32di(third, wordAt(bytes + 2 * kLaneBytes + at));
    }
    crc = shift(static_cast<uint32_t>(crc)) ^ second;
    crc = shift(static_cast<uint32_t>(crc)) ^ third;
  }
  for (; length >= 8; length -= 8, bytes += 8) crc = __builtin_ia32_crc32di(crc, wordAt(bytes));
  auto rest = static_cast<uint32_t>(crc);
  for (; length > 0; length--, bytes++) rest = __builtin_ia32_crc32qi(rest, *bytes);
  return ~rest;
}

}  // namespace

uint32_t crc32cByTable(const uint8_t* bytes, size_t length) {
  uint32_t crc = 0xffffffffu;
  for (size_t index = 0; index < length; index++) crc = (crc >> 8) ^ kByteTable[(crc ^ bytes[index]) & 0xff];
  return ~crc;
}

uint32_t crc32c(const uint8_t* bytes, size_t length) {
  static const bool hasInstruction = __builtin_cpu_supports("sse4.2") != 0;
  return hasInstruction ? byInstruction(bytes, length) : crc32cByTable(bytes, length);
}

}  // namespace vivarium

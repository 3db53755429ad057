// See crc32c.h. The instruction has a latency of three cycles and can start one each cycle, so three lanes run side by
// side; a table that moves a CRC over one lane's length of zeros joins them. Without it eight bytes are taken at once,
// by one table for each of their places. A CPU that is itself emulated may work the instruction out bit by bit (QEMU's
// TCG does), which takes longer than the tables: so which it is is measured once.
#include "snapshot/crc32c.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

namespace vivarium {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected
constexpr size_t kLaneBytes = 1024;
// Of one measurement: some microseconds where the instruction is one.
constexpr size_t kProbeBytes = 8192;
constexpr int kProbes = 3;

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

// What a byte adds to a CRC once it and `place` zero bytes have gone by.
constexpr std::array<Table, 8> makePlaceTables() {
  std::array<Table, 8> tables{kByteTable};
  for (size_t place = 1; place < tables.size(); place++) {
    for (size_t value = 0; value < 256; value++) {
      const uint32_t crc = tables[place - 1][value];
      tables[place][value] = (crc >> 8) ^ kByteTable[crc & 0xff];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> kPlaceTables = makePlaceTables();

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

bool hasInstruction() {
  return __builtin_cpu_supports("sse4.2") != 0;
}

using Crc32c = uint32_t (*)(const uint8_t*, size_t);

std::chrono::nanoseconds timeOf(Crc32c crc, const uint8_t* bytes) {
  auto shortest = std::chrono::nanoseconds::max();
  for (int probe = 0; probe < kProbes; probe++) {
    const auto start = std::chrono::steady_clock::now();
    volatile uint32_t result = crc(bytes, kProbeBytes);
    static_cast<void>(result);
    shortest = std::min<std::chrono::nanoseconds>(shortest, std::chrono::steady_clock::now() - start);
  }
  return shortest;
}

Crc32c fastest() {
  if (!hasInstruction()) return crc32cByTable;
  const std::array<uint8_t, kProbeBytes> bytes{};
  return timeOf(byInstruction, bytes.data()) <= timeOf(crc32cByTable, bytes.data()) ? byInstruction : crc32cByTable;
}

}  // namespace

uint32_t crc32cByInstruction(const uint8_t* bytes, size_t length) {
  return hasInstruction() ? byInstruction(bytes, length) : crc32cByTable(bytes, length);
}

uint32_t crc32cByTable(const uint8_t* bytes, size_t length) {
  uint32_t crc = 0xffffffffu;
  for (; length >= 8; length -= 8, bytes += 8) {
    const uint64_t word = wordAt(bytes) ^ crc;
    crc = 0;
    for (size_t at = 0; at < 8; at++) crc ^= kPlaceTables[7 - at][(word >> (8 * at)) & 0xff];
  }
  for (; length > 0; length--, bytes++) crc = (crc >> 8) ^ kByteTable[(crc ^ *bytes) & 0xff];
  return ~crc;
}

uint32_t crc32c(const uint8_t* bytes, size_t length) {
  static const Crc32c chosen = fastest();
  return chosen(bytes, length);
}

}  // namespace vivarium

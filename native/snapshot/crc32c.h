// CRC-32C (Castagnoli, RFC 3720 section 12.1): the check of every stored group. By the SSE4.2 instruction where the CPU
// has it and is fast at it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vivarium {

uint32_t crc32c(const uint8_t* bytes, size_t length);
// The same without the instruction, also for the test that holds one against the other.
uint32_t crc32cByTable(const uint8_t* bytes, size_t length);
// With it; the same again where the CPU has none.
uint32_t crc32cByInstruction(const uint8_t* bytes, size_t length);

}  // namespace vivarium

// Monotonic time, and what a spinning thread does between two looks.
#pragma once

#include <time.h>

#include <cstdint>

namespace vivarium {

inline uint64_t monotonicNs() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

inline void spinPause() {
  __builtin_ia32_pause();
}

}  // namespace vivarium

// The futex operations that threads of this process wait and wake with.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace vivarium {

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

// Sleeps while *word == expected. Returns on a wake-up, on a signal, and for no reason: the caller looks again.
inline void futexWait(std::atomic<uint32_t>* word, uint32_t expected) {
  ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

// The same, and returns at a moment of CLOCK_MONOTONIC too.
inline void futexWaitUntil(std::atomic<uint32_t>* word, uint32_t expected, uint64_t deadlineNs) {
  const timespec deadline{static_cast<time_t>(deadlineNs / 1'000'000'000u),
                          static_cast<long>(deadlineNs % 1'000'000'000u)};
  ::syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, &deadline, nullptr, FUTEX_BITSET_MATCH_ANY);
}

inline void futexWake(std::atomic<uint32_t>* word) {
  ::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

inline void futexWakeAll(std::atomic<uint32_t>* word) {
  ::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace vivarium

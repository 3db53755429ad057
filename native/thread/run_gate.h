// The gate between a machine's vCPU threads and the guest: each goes through it into KVM_RUN and comes out again.
// While the gate is shut none goes in, so that a holder who has seen all of them out has the guest at rest, without
// JavaScript and in whatever states the vCPUs are.
//
//   vCPU thread:  inside = true;  shut?      holder:  shut = true;  inside?
//
// Each writes its own word before it reads the other's, all sequentially consistent: a thread that goes in unaware of
// the holder is seen by the holder, and a thread that the holder saw inside tells it when it comes out.
//
// A condemned gate stays shut for good, with nobody waiting at it: no vCPU of the machine ever goes in again.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/clock.h"
#include "core/futex.h"

namespace vivarium {

class RunGate {
 public:
  // vCPU threads, each with a word of its own that is true while the thread is, or may be, in KVM_RUN.
  // Both: false when the gate is condemned. Then the thread is outside, and what it brought out counts for nothing.
  bool enter(std::atomic<bool>& inside) {
    inside.store(true, std::memory_order_seq_cst);
    while (shut_.load(std::memory_order_seq_cst) != kOpen) [[unlikely]] {
        if (!leave(inside)) return false;
        futexWait(&shut_, kShut);
        inside.store(true, std::memory_order_seq_cst);
      }
    return true;
  }

  bool leave(std::atomic<bool>& inside) {
    inside.store(false, std::memory_order_seq_cst);
    const uint32_t shut = shut_.load(std::memory_order_seq_cst);
    if (shut == kOpen) [[likely]]
      return true;
    left_.fetch_add(1, std::memory_order_seq_cst);
    futexWake(&left_);
    return shut != kCondemned;
  }

  // The holder, one at a time. shut(), then make those inside come out, then waitUntil(), and in the end open().
  void shut() { change(kOpen, kShut); }

  void open() {
    change(kShut, kOpen);
    futexWakeAll(&shut_);
  }

  // Any thread: for good. Then make those inside come out.
  void condemn() {
    shut_.store(kCondemned, std::memory_order_seq_cst);
    futexWakeAll(&shut_);
  }

  // Waits until `allOut` says so; false when the deadline (CLOCK_MONOTONIC) came first.
  template <typename AllOut>
  bool waitUntil(uint64_t deadlineNs, AllOut allOut) {
    for (;;) {
      const uint32_t left = left_.load(std::memory_order_seq_cst);
      if (allOut()) return true;
      if (monotonicNs() >= deadlineNs) return false;
      futexWaitUntil(&left_, left, deadlineNs);
    }
  }

 private:
  static constexpr uint32_t kOpen = 0;
  static constexpr uint32_t kShut = 1;
  static constexpr uint32_t kCondemned = 2;

  void change(uint32_t from, uint32_t to) { shut_.compare_exchange_strong(from, to, std::memory_order_seq_cst); }

  std::atomic<uint32_t> shut_{kOpen};
  std::atomic<uint32_t> left_{0};
};

}  // namespace vivarium

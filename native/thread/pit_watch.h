// Looks at the kernel's PIT while nothing is owed, so that JavaScript need not: every interval, on the event thread, it
// compares what channel 0 holds and how many ticks were acknowledged with what is expected, and wakes JavaScript once
// when they differ. It decides nothing.
//
//        watch(calm)             differs
//   OFF -------------> LOOKING ----------> STIRRED (silent until the next watch)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "kvm/pit.h"
#include "kvm/vm.h"
#include "thread/event_loop.h"
#include "thread/ready_queue.h"
#include "thread/vcpu_group.h"

namespace vivarium {

// What is to be found as long as nothing happens. Times are CLOCK_MONOTONIC.
struct PitCalm {
  PitLoad load{};
  uint8_t mode = 0;
  uint64_t periodNs = 0;  // of the ticks; 0: none is expected
  uint64_t sinceNs = 0;   // a moment, and the ticks that were acknowledged at it
  uint64_t delivered = 0;
  uint64_t behindNs = 0;  // what the ticks since may be worth less than the time since, and more
  uint64_t aheadNs = 0;
  uint64_t intervalNs = 0;
};

// A look that found nothing.
struct PitLook {
  uint64_t atNs = 0;
  uint64_t delivered = 0;
  std::vector<uint64_t> vcpuCpuNs;
};

class PitWatch : public std::enable_shared_from_this<PitWatch> {
 public:
  // `delivered` is called on the event thread. `loop` lives until after close().
  PitWatch(std::shared_ptr<ReadyQueue> ready, std::shared_ptr<Source> source, EventLoop& loop, std::shared_ptr<Vm> vm,
           std::shared_ptr<VcpuGroup> vcpus, std::function<uint64_t()> delivered);
  // JavaScript thread, once: puts it on the loop.
  void start();

  // JavaScript thread: looks from now on, or no more. The looks of the watch before are forgotten.
  void watch(std::optional<PitCalm> calm);
  // JavaScript thread: the last look that found nothing, if there was one since the last call and the last watch().
  std::optional<PitLook> takeLook();
  // JavaScript thread: something was found since the last call.
  bool takeStir();
  // Any thread but the event thread, before the VM's descriptor is closed: waits for a look that is under way.
  // Idempotent.
  void close();

 private:
  void look();
  bool isCalm(const PitCalm& calm, uint64_t nowNs, uint64_t delivered) const;

  const std::shared_ptr<ReadyQueue> ready_;
  const std::shared_ptr<Source> source_;
  EventLoop& loop_;
  const std::shared_ptr<Vm> vm_;
  const std::shared_ptr<VcpuGroup> vcpus_;
  const std::function<uint64_t()> delivered_;

  std::mutex mutex_;  // over a look, for microseconds, and what follows
  bool closed_ = false;
  EventLoop::Key alarm_ = 0;
  std::optional<PitCalm> calm_;
  std::optional<PitLook> look_;
  bool stirred_ = false;
};

}  // namespace vivarium

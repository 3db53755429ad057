// Steers the kernel's PIT of one VM for JavaScript: counts the ticks that the guest acknowledges, and changes channel 0
// while every vCPU is held outside the guest, so that no write of the guest's to ports 0x40 to 0x43 is overwritten.
//
//          change()              a tick, or the wait is over               takeOutcome()
//   IDLE -----------> WAITING ------------------------------> hold, look, load ---------> IDLE
//
//   Beside it, armed by a load that has one and disarmed by the next change: the expiry, a further load that happens by
//   itself. Both are carried out on the event thread, one after the other, so neither overtakes the other.
//
// A change that comes to nothing because a vCPU did not come out, or because the guest measures with channel 2, leaves
// the expiry armed; an expiry that can't be carried out for these reasons is tried again until it is.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "core/event_fd.h"
#include "core/failure.h"
#include "kvm/pit.h"
#include "kvm/vm.h"
#include "thread/event_loop.h"
#include "thread/pit_watch.h"
#include "thread/ready_queue.h"
#include "thread/vcpu_group.h"

namespace vivarium {

// What channel 0 must hold, and what is to be done then.
struct PitWish {
  PitLoad expected{};
  uint8_t expectedMode = 0;
  std::optional<PitLoad> load;
  std::optional<bool> reinject;
};

struct PitChange {
  struct Expiry {
    uint64_t afterNs;
    PitLoad load;
  };
  PitWish wish;
  uint64_t waitForTickNs = 0;
  std::optional<Expiry> expiry;
};

struct PitOutcome {
  enum class Result { kApplied, kChanged, kBusy, kFailed };
  Result result = Result::kApplied;
  bool expired = false;  // an expiry's, not a change's
  uint64_t atNs = 0;     // CLOCK_MONOTONIC
  uint64_t delivered = 0;
  uint64_t heldNs = 0;
  PitReading reading{};            // what was found
  std::optional<Failure> failure;  // with kFailed
};

class PitSteering : public std::enable_shared_from_this<PitSteering> {
 public:
  // JavaScript thread. Throws Failure where the VM has no PIT in the kernel. `loop` lives until after close().
  PitSteering(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready, EventLoop& loop, std::shared_ptr<Vm> vm,
              std::shared_ptr<VcpuGroup> vcpus);
  // JavaScript thread, once: puts it on the loop.
  void start();

  const std::shared_ptr<Source>& source() const { return source_; }
  // Any thread: the ticks that the guest has acknowledged since the steering was made. Waits for nothing.
  uint64_t delivered();
  // JavaScript thread: what channel 0 holds now, with KVM_GET_PIT2. Throws Failure.
  PitReading read() const { return PitState(vm_->fd()).reading(); }
  // JavaScript thread: who looks while nothing is to be changed.
  PitWatch& watch() const { return *watch_; }
  // JavaScript thread; ends the watch. Throws Failure kState until the outcome of the change before was taken.
  void change(const PitChange& change);
  // JavaScript thread: the oldest outcome.
  std::optional<PitOutcome> takeOutcome();
  // Any thread but the event thread, before the VM's descriptor is closed: a step that is under way is waited for, and
  // none comes after it. What it was to do is given up. Idempotent.
  void close();

 private:
  struct Expiry {
    PitWish wish;
    uint64_t dueNs;
    uint64_t tryNs;
    uint64_t pauseNs;
  };

  void step();
  bool waitsForTick(uint64_t nowNs);
  void carryOut();
  void expire(uint64_t nowNs);
  PitOutcome apply(const PitWish& wish, bool patient);
  void applyHeld(const PitWish& wish, bool patient, PitOutcome& outcome);
  void put(PitOutcome outcome);

  const std::shared_ptr<ReadyQueue> ready_;
  const std::shared_ptr<Source> source_;
  EventLoop& loop_;
  const std::shared_ptr<Vm> vm_;
  const std::shared_ptr<VcpuGroup> vcpus_;
  const EventFd trigger_;   // never signalled, but KVM_IRQFD wants one
  const EventFd resample_;  // its counter: acknowledged ticks that were not added to delivered_ yet

  const std::shared_ptr<PitWatch> watch_;

  std::mutex stepMutex_;  // over a step, with its hold, and over close()
  bool closed_ = false;
  EventLoop::Key knock_ = 0;  // a timer that JavaScript sets: there is something to look at
  EventLoop::Key alarm_ = 0;  // a timer that a step sets
  EventLoop::Key ticks_ = 0;  // the resample eventfd, on the loop only while a tick is waited for
  std::optional<PitChange> change_;
  uint64_t waitUntilNs_ = 0;
  uint64_t deliveredBefore_ = 0;
  std::optional<Expiry> expiry_;

  std::mutex mutex_;  // what follows; held for a moment only
  uint64_t delivered_ = 0;
  bool tickAwaited_ = false;
  bool underWay_ = false;
  std::optional<PitChange> handedOver_;
  std::deque<PitOutcome> outcomes_;
};

}  // namespace vivarium

// The steps on the event thread, and what JavaScript hands over and takes. The resample eventfd is read by both sides,
// each adding what it read, so that no tick is lost or counted twice.
#include "thread/pit_steering.h"

#include <algorithm>
#include <cerrno>

#include "core/clock.h"

namespace vivarium {
namespace {

// A vCPU comes out within microseconds, or when it gets a core to come out on. Others wait for it meanwhile.
constexpr uint64_t kHoldLimitNs = 20'000'000;

// An expiry that could not be carried out is tried again after this time, then twice as long, up to the second.
constexpr uint64_t kShortestPauseNs = 5'000'000;
constexpr uint64_t kLongestPauseNs = 80'000'000;
// So long an expiry makes way for measurements. Afterwards one is disturbed rather than the guest's clock run ahead.
constexpr uint64_t kPatienceNs = 1'000'000'000;

constexpr uint32_t kTimerGsi = 0;

bool same(const PitLoad& one, const PitLoad& other) {
  return one.count == other.count && one.latch == other.latch;
}

}  // namespace

PitSteering::PitSteering(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready, EventLoop& loop,
                         std::shared_ptr<Vm> vm, std::shared_ptr<VcpuGroup> vcpus)
    : ready_(std::move(ready)),
      source_(ready_->newSource()),
      loop_(loop),
      vm_(std::move(vm)),
      vcpus_(std::move(vcpus)),
      trigger_(counters, 0),
      resample_(counters, 0),
      // It is called by the watch's looks, of which close() lets none come after it.
      watch_(std::make_shared<PitWatch>(ready_, source_, loop_, vm_, vcpus_, [this] { return delivered(); })) {
  const PitState wanted(vm_->fd());
  vm_->irqfd(trigger_, kTimerGsi, 0, &resample_);
}

void PitSteering::start() {
  const auto handler = [self = weak_from_this()] {
    if (const auto steering = self.lock()) steering->step();
  };
  knock_ = loop_.addTimer(handler);
  alarm_ = loop_.addTimer(handler);
  watch_->start();
}

uint64_t PitSteering::delivered() {
  bool awaited = false;
  uint64_t delivered;
  {
    const std::lock_guard lock(mutex_);
    const uint64_t more = resample_.read();
    delivered_ += more;
    delivered = delivered_;
    awaited = more > 0 && tickAwaited_;
  }
  // The event thread would not hear of a tick that was read here.
  if (awaited) loop_.setTimer(knock_, EventLoop::kAtOnce);
  return delivered;
}

void PitSteering::change(const PitChange& change) {
  watch_->watch(std::nullopt);
  {
    const std::lock_guard lock(mutex_);
    if (underWay_) throw Failure(FailureKind::kState, "pit", EBUSY, "a change is under way");
    underWay_ = true;
    handedOver_ = change;
  }
  loop_.setTimer(knock_, EventLoop::kAtOnce);
}

std::optional<PitOutcome> PitSteering::takeOutcome() {
  const std::lock_guard lock(mutex_);
  if (outcomes_.empty()) return std::nullopt;
  PitOutcome outcome = std::move(outcomes_.front());
  outcomes_.pop_front();
  if (!outcome.expired) underWay_ = false;
  return outcome;
}

void PitSteering::close() {
  watch_->close();
  const std::lock_guard lock(stepMutex_);
  closed_ = true;
  for (const EventLoop::Key key : {knock_, alarm_, ticks_}) loop_.remove(key);
  source_->retire();
}

// --- the event thread's side ---

void PitSteering::step() {
  const std::lock_guard stepLock(stepMutex_);
  if (closed_) return;
  const uint64_t nowNs = monotonicNs();
  if (!change_.has_value()) {
    const std::lock_guard lock(mutex_);
    if (handedOver_.has_value()) {
      change_ = std::move(handedOver_);
      handedOver_.reset();
      waitUntilNs_ = nowNs + change_->waitForTickNs;
      tickAwaited_ = change_->waitForTickNs > 0;
      delivered_ += resample_.read();
      deliveredBefore_ = delivered_;
    }
  }
  if (change_.has_value()) {
    if (!waitsForTick(nowNs)) carryOut();
  } else if (expiry_.has_value() && expiry_->tryNs <= nowNs) {
    expire(nowNs);
  }
  loop_.setTimer(alarm_, change_.has_value() ? waitUntilNs_ : expiry_.has_value() ? expiry_->tryNs : 0);
}

// Without a tick to wait for the eventfd is not on the loop, so that a guest's ticks wake nobody.
bool PitSteering::waitsForTick(uint64_t nowNs) {
  if (nowNs >= waitUntilNs_ || delivered() > deliveredBefore_) return false;
  if (ticks_ == 0) {
    try {
      ticks_ = loop_.addFd(resample_.fd(), [self = weak_from_this()] {
        if (const auto steering = self.lock()) steering->step();
      });
    } catch (const Failure&) {
      return false;  // the kernel has no room for it: then not just after a tick
    }
  }
  return true;
}

void PitSteering::carryOut() {
  loop_.remove(ticks_);
  ticks_ = 0;
  {
    const std::lock_guard lock(mutex_);
    tickAwaited_ = false;
  }
  PitOutcome outcome = apply(change_->wish, true);
  if (outcome.result == PitOutcome::Result::kApplied) {
    expiry_.reset();
    if (const auto& expiry = change_->expiry) {
      const uint64_t dueNs = outcome.atNs + expiry->afterNs;
      const PitLoad loaded = change_->wish.load.value_or(change_->wish.expected);
      expiry_ = Expiry{PitWish{loaded, change_->wish.expectedMode, expiry->load, std::nullopt}, dueNs, dueNs,
                       kShortestPauseNs};
    }
  } else if (outcome.result == PitOutcome::Result::kChanged) {
    expiry_.reset();  // what it was to end has ended
  }
  change_.reset();
  put(std::move(outcome));
}

void PitSteering::expire(uint64_t nowNs) {
  PitOutcome outcome = apply(expiry_->wish, nowNs - expiry_->dueNs < kPatienceNs);
  if (outcome.result == PitOutcome::Result::kBusy || outcome.result == PitOutcome::Result::kFailed) {
    expiry_->tryNs = monotonicNs() + expiry_->pauseNs;
    expiry_->pauseNs = std::min(kLongestPauseNs, expiry_->pauseNs * 2);
    return;
  }
  expiry_.reset();
  outcome.expired = true;
  put(std::move(outcome));
}

PitOutcome PitSteering::apply(const PitWish& wish, bool patient) {
  PitOutcome outcome;
  const uint64_t beganNs = monotonicNs();
  const bool held = vcpus_->hold(beganNs + kHoldLimitNs);
  try {
    if (held) {
      applyHeld(wish, patient, outcome);
    } else {
      outcome.result = PitOutcome::Result::kBusy;
      outcome.atNs = monotonicNs();
    }
    outcome.delivered = delivered();
  } catch (const Failure& failure) {
    outcome.result = PitOutcome::Result::kFailed;
    outcome.failure = failure;
  }
  if (held) vcpus_->release();
  outcome.heldNs = monotonicNs() - beganNs;
  return outcome;
}

void PitSteering::applyHeld(const PitWish& wish, bool patient, PitOutcome& outcome) {
  PitState state(vm_->fd());
  outcome.reading = state.reading();
  outcome.atNs = monotonicNs();
  const PitReading& found = outcome.reading;
  if (!same(found.load, wish.expected) || found.mode != wish.expectedMode || found.midWrite) {
    outcome.result = PitOutcome::Result::kChanged;
    return;
  }
  if (patient && wish.load.has_value() && state.measuring(outcome.atNs)) {
    outcome.result = PitOutcome::Result::kBusy;
    return;
  }
  if (wish.reinject.has_value()) setPitReinject(vm_->fd(), *wish.reinject);
  if (wish.load.has_value()) {
    state.setWith(*wish.load, vm_->fd());
    outcome.atNs = monotonicNs();
  }
  outcome.result = PitOutcome::Result::kApplied;
}

void PitSteering::put(PitOutcome outcome) {
  {
    const std::lock_guard lock(mutex_);
    outcomes_.push_back(std::move(outcome));
  }
  ready_->put(source_);
}

}  // namespace vivarium

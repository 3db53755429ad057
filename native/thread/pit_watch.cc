// Looks of all machines fall on the same multiples of their interval, so that one wake-up of the event thread serves
// them.
#include "thread/pit_watch.h"

#include "core/clock.h"
#include "core/failure.h"

namespace vivarium {
PitWatch::PitWatch(std::shared_ptr<ReadyQueue> ready, std::shared_ptr<Source> source, EventLoop& loop,
                   std::shared_ptr<Vm> vm, std::shared_ptr<VcpuGroup> vcpus, std::function<uint64_t()> delivered)
    : ready_(std::move(ready)),
      source_(std::move(source)),
      loop_(loop),
      vm_(std::move(vm)),
      vcpus_(std::move(vcpus)),
      delivered_(std::move(delivered)) {}

void PitWatch::start() {
  alarm_ = loop_.addTimer([self = weak_from_this()] {
    if (const auto watch = self.lock()) watch->look();
  });
}

void PitWatch::watch(std::optional<PitCalm> calm) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  calm_ = calm;
  look_.reset();
  stirred_ = false;
  loop_.setTimer(alarm_, calm.has_value() ? (monotonicNs() / calm->intervalNs + 1) * calm->intervalNs : 0);
}

std::optional<PitLook> PitWatch::takeLook() {
  const std::lock_guard lock(mutex_);
  std::optional<PitLook> look;
  look.swap(look_);
  return look;
}

bool PitWatch::takeStir() {
  const std::lock_guard lock(mutex_);
  const bool stirred = stirred_;
  stirred_ = false;
  return stirred;
}

void PitWatch::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  calm_.reset();
  loop_.remove(alarm_);
}

void PitWatch::look() {
  const std::lock_guard lock(mutex_);
  if (closed_ || !calm_.has_value()) return;
  const uint64_t nowNs = monotonicNs();
  const uint64_t delivered = delivered_();
  if (isCalm(*calm_, nowNs, delivered)) {
    look_ = PitLook{nowNs, delivered, vcpus_->cpuNs()};
    loop_.setTimer(alarm_, (nowNs / calm_->intervalNs + 1) * calm_->intervalNs);
    return;
  }
  calm_.reset();
  stirred_ = true;
  ready_->put(source_);
}

bool PitWatch::isCalm(const PitCalm& calm, uint64_t nowNs, uint64_t delivered) const {
  const uint64_t ticks = delivered - calm.delivered;
  if (calm.periodNs == 0 && ticks > 0) return false;
  if (calm.periodNs > 0) {
    const auto lagNs = static_cast<int64_t>(nowNs - calm.sinceNs) - static_cast<int64_t>(ticks * calm.periodNs);
    if (lagNs > static_cast<int64_t>(calm.behindNs) || lagNs < -static_cast<int64_t>(calm.aheadNs)) return false;
  }
  try {
    const PitReading found = PitState(vm_->fd()).reading();
    return found.load.count == calm.load.count && found.load.latch == calm.load.latch && found.mode == calm.mode &&
           !found.midWrite;
  } catch (const Failure&) {
    return false;  // JavaScript's own look meets the same, and knows what to do with it
  }
}

}  // namespace vivarium

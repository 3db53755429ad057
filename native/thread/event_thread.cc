// Rings, by a timer on the loop.
#include "thread/event_thread.h"

#include <algorithm>

#include "core/clock.h"

namespace vivarium {
namespace {

// While entries arrive the rings are read every 5 ms; without traffic the interval doubles up to 40 ms.
constexpr uint64_t kShortestNs = 5'000'000;
constexpr uint64_t kLongestNs = 40'000'000;

}  // namespace

EventThread::EventThread(const CountersPtr& counters) : loop_(counters) {}

EventThread::~EventThread() {
  stop();
}

void EventThread::stop() {
  loop_.stop();
  const std::lock_guard lock(ringsMutex_);
  rings_.clear();
}

void EventThread::addRing(const std::shared_ptr<PostedRing>& ring, std::function<bool()> running) {
  loop_.start();
  if (ringTimer_ == 0) ringTimer_ = loop_.addTimer([this] { drainRings(); });
  {
    const std::lock_guard lock(ringsMutex_);
    std::erase_if(rings_, [](const Ring& row) { return row.ring.expired(); });
    for (const Ring& row : rings_) {
      if (row.ring.lock() == ring) return;
    }
    rings_.push_back(Ring{ring, std::move(running)});
  }
  machineRuns();
}

void EventThread::machineRuns() {
  if (ringTimer_ == 0) return;
  lookAnew_.store(true, std::memory_order_seq_cst);
  loop_.setTimer(ringTimer_, EventLoop::kAtOnce);
}

void EventThread::drainRings() {
  if (lookAnew_.exchange(false, std::memory_order_seq_cst)) intervalNs_ = 0;
  std::vector<std::shared_ptr<PostedRing>> running;
  {
    const std::lock_guard lock(ringsMutex_);
    for (const Ring& row : rings_) {
      if (auto ring = row.ring.lock(); ring != nullptr && row.running()) running.push_back(std::move(ring));
    }
  }
  if (running.empty()) {
    intervalNs_ = 0;
    return;
  }
  uint32_t moved = 0;
  for (const auto& ring : running) moved += ring->drainWithoutWaiting();
  intervalNs_ = moved > 0 || intervalNs_ == 0 ? kShortestNs : std::min(kLongestNs, intervalNs_ * 2);
  loop_.setTimer(ringTimer_, monotonicNs() + intervalNs_);
  // A machine that went on meanwhile has asked for a look at once, which must not be put off.
  if (lookAnew_.load(std::memory_order_seq_cst)) loop_.setTimer(ringTimer_, EventLoop::kAtOnce);
}

}  // namespace vivarium

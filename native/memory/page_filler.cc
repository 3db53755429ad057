// See page_loader.h: what its filling thread does. It waits for the source, and for whoever waits for a fault.
#include <algorithm>

#include "core/clock.h"
#include "core/futex.h"
#include "memory/page_loader.h"
#include "memory/quiet_thread.h"

namespace vivarium {
namespace {

constexpr uint64_t kMakeWayNs = 1'000'000;

}  // namespace

void PageLoader::makeWay() {
  for (;;) {
    const uint32_t waiting = waitingFaults_.load(std::memory_order_acquire);
    if (waiting == 0 || ending_.load(std::memory_order_acquire)) return;
    futexWaitUntil(&waitingFaults_, waiting, monotonicNs() + kMakeWayNs);
  }
}

void PageLoader::fill() {
  for (const uint32_t group : order_) {
    makeWay();
    if (ending_.load(std::memory_order_acquire)) return;
    if (state(group) != GroupState::kMissing) continue;
    if (fillBlock(group) && state(group) != GroupState::kMissing) continue;
    if (claim(group)) loadClaimed(fillHand_, group, GroupState::kFilled);
  }
  block_.reset();
}

// The group's block in one piece, where nothing of it is there or on its way; false when it was left alone. Each group
// is claimed just before it is read, so that nobody who comes for another one waits for these reads.
bool PageLoader::fillBlock(uint32_t group) {
  const uint32_t first = group / kBlockGroups * kBlockGroups;
  const uint32_t end = first + kBlockGroups;
  if (block_ == nullptr || core_.area.bytesOf(first, kBlockGroups) < kBlockBytes) return false;
  uint32_t zeros = 0;
  for (uint32_t each = first; each < end; each++) {
    if (state(each) != GroupState::kMissing) return false;
    zeros += source_->knownZero(each) ? 1 : 0;
  }
  // A huge page that is mostly zero costs more memory than it saves time.
  if (zeros > kBlockGroups / 2) return false;
  for (uint32_t each = first; each < end; each++) {
    makeWay();
    if (ending_.load(std::memory_order_acquire)) return true;
    const uint32_t urgent = urgent_.exchange(kNone, std::memory_order_acq_rel);
    const bool isWaitedFor = urgent >= first && urgent < each;
    if (isWaitedFor || !claim(each)) {
      // Somebody has come for one of them: those at hand are put in, and the rest comes group by group.
      fillSingly(first, each);
      return true;
    }
    bool isZero;
    LoadFailure failure;
    if (!read(fillHand_, each, atBlock(each), &isZero, &failure)) {
      fillSingly(first, each);
      events_.failed(failure);
      return true;
    }
  }
  bool tell = false;
  int error;
  {
    const std::lock_guard lock(core_.mutex);
    if (core_.failed) return true;
    error = putInBlock(first);
    for (uint32_t each = first; each < end && error == 0; each++) tell = settle(each, GroupState::kFilled) || tell;
    if (waiters_.load(std::memory_order_relaxed) > 0) changed_.notify_all();
  }
  if (error != 0) events_.failed({LoadFailure::Why::kInstall, first, 0, 0, error});
  if (tell) events_.progress();
  return true;
}

void PageLoader::fillSingly(uint32_t first, uint32_t end) {
  for (uint32_t group = first; group < end; group++) install(group, atBlock(group), false, GroupState::kFilled);
}

int PageLoader::putInBlock(uint32_t first) {
  bool wanted = false;
  for (uint32_t group = first; group < first + kBlockGroups; group++) wanted = wanted || core_.intercept.wanted(group);
  // UFFDIO_MOVE knows no protection either. What it refuses is copied; what it has moved by then stays.
  if (!wanted && core_.fault.move(core_.area.at(first), block_->data(), kBlockBytes) == 0) return 0;
  for (uint32_t group = first; group < first + kBlockGroups; group++) {
    const int error = putIn(group, atBlock(group), false);
    if (error != 0) return error;
  }
  return 0;
}

void PageLoader::startFilling(std::shared_ptr<void> owner) {
  if (filling_) return;
  filler_ =
      startQuietThread(counters_, "vivarium-fill", ThreadDuty::kFill, [this, owner = std::move(owner)] { fill(); });
  filling_ = true;
}

void PageLoader::ended(uint64_t withinNs) {
  if (!filling_) return;
  filling_ = false;
  joinOrLeave(filler_, withinNs);
}

}  // namespace vivarium

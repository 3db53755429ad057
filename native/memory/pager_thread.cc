// The pager's thread: faults first, then what host code waits for, then one group of an intercept's walk. It takes no
// lock for longer than a group, and waits for nothing but the source of what is missing.
#include <poll.h>
#include <time.h>

#include <array>

#include "core/clock.h"
#include "memory/pager.h"

namespace vivarium {
namespace {

constexpr size_t kFaultsAtOnce = 16;
constexpr long kSinkAgainNs = 300'000;
constexpr uint64_t kStalledWaitNs = 1'000'000;

}  // namespace

bool Pager::serveFaults() {
  std::array<UserFault::Fault, kFaultsAtOnce> faults;
  const size_t count = core_.fault.read(faults);
  if (count == 0) return false;
  const uint64_t atNs = monotonicNs();
  PageLoader* const loader = loading_.load(std::memory_order_acquire);
  uint32_t missing = 0;
  for (size_t index = 0; index < count; index++) missing += faults[index].missing ? 1 : 0;
  if (loader != nullptr && missing > 0) loader->onFaults(missing);
  for (size_t index = 0; index < count; index++) {
    const uint32_t group = core_.area.groupOf(faults[index].address);
    if (!faults[index].missing) {
      const std::lock_guard lock(core_.mutex);
      core_.intercept.onFault(group, atNs);
      continue;
    }
    if (loader == nullptr) continue;
    loader->load(group, GroupState::kFaulted);
    loader->tookNs(monotonicNs() - atNs);
    // Whoever has put it in has woken those who waited by then; this one may have come just after.
    if (loader->state(group) != GroupState::kLoading) {
      const std::lock_guard lock(core_.mutex);
      if (faults[index].minor) loader->again(group);
      core_.fault.wake(core_.area.at(group), core_.area.bytesOf(group));
    }
  }
  if (loader != nullptr && missing > 0) loader->onFaults(0);
  return true;
}

void Pager::serveAsked() {
  PageLoader* const loader = loading_.load(std::memory_order_acquire);
  for (;;) {
    uint32_t group;
    {
      const std::lock_guard lock(askedMutex_);
      if (asked_.empty()) return;
      group = asked_.front();
      asked_.pop_front();
    }
    loader->load(group, GroupState::kAsked);
  }
}

Pager::Walk Pager::walk() {
  PageLoader* const loader = loading_.load(std::memory_order_acquire);
  std::shared_ptr<GroupSink> full;
  {
    std::unique_lock lock(core_.mutex);
    if (core_.intercept.phase() != WriteIntercept::Phase::kActive) return Walk::kIdle;
    // Writes that found no room are served all the same.
    if (!walking_.load(std::memory_order_acquire) && !core_.intercept.stalled()) return Walk::kIdle;
    uint32_t group;
    if (loader != nullptr && !core_.intercept.owes() && core_.intercept.next(&group) && !loader->present(group)) {
      lock.unlock();
      loader->load(group, GroupState::kAsked);
      // Another thread has it in hand, or it can't be had.
      return loader->present(group) ? Walk::kMore : Walk::kSoon;
    }
    switch (core_.intercept.step()) {
      case WriteIntercept::Step::kMore: return Walk::kMore;
      case WriteIntercept::Step::kNoRoom:
        if (!core_.intercept.stalled()) return Walk::kSoon;
        full = core_.intercept.sink();
        break;
      case WriteIntercept::Step::kEnd:
        lock.unlock();
        runtime_->ready->put(source_);
        return Walk::kIdle;
    }
  }
  full->room(kStalledWaitNs);
  return Walk::kMore;
}

void Pager::run() {
  std::array<pollfd, 2> waits{pollfd{core_.fault.fd(), POLLIN, 0}, pollfd{wake_.fd(), POLLIN, 0}};
  while (!ending_.load(std::memory_order_acquire)) {
    // JavaScript's thread may wait for what is asked: it does not wait for the faults to end.
    while (serveFaults() && !ending_.load(std::memory_order_acquire)) serveAsked();
    serveAsked();
    const Walk walked = walk();
    if (walked == Walk::kMore && wanted_.load() == 0) continue;
    const timespec soon{0, walked == Walk::kMore ? kSinkAgainNs / 10 : kSinkAgainNs};
    ::ppoll(waits.data(), waits.size(), walked == Walk::kIdle ? nullptr : &soon, nullptr);
    if ((waits[1].revents & POLLIN) == 0) continue;
    wake_.read();
    if (walked != Walk::kIdle || loading_.load() == nullptr) continue;
    const std::lock_guard lock(core_.mutex);
    if (!closed_) unwatchIfWhole();
  }
}

}  // namespace vivarium

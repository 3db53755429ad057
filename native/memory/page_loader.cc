// See page_loader.h. A read is tried again only where that can help; how long all attempts may take is bounded.
#include "memory/page_loader.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "core/clock.h"
#include "core/failure.h"
#include "core/futex.h"

namespace vivarium {
namespace {

constexpr int kAttempts = 4;
constexpr uint64_t kFirstPauseNs = 1'000'000;  // before the second attempt; four times as long before each next

bool mayHelpAgain(const GroupReadResult& result) {
  // A checksum may be wrong because of the transfer. A file that has become shorter stays so.
  if (result.kind == GroupReadResult::Kind::kChecksum) return true;
  if (result.kind != GroupReadResult::Kind::kSystem) return false;
  const int error = result.errnoNumber;
  return error == EINTR || error == EAGAIN || error == EIO || error == ENOMEM;
}

LoadFailure::Why whyOf(GroupReadResult::Kind kind) {
  switch (kind) {
    case GroupReadResult::Kind::kShortRead: return LoadFailure::Why::kShortRead;
    case GroupReadResult::Kind::kChecksum: return LoadFailure::Why::kChecksum;
    case GroupReadResult::Kind::kDecompress: return LoadFailure::Why::kDecompress;
    default: return LoadFailure::Why::kSystem;
  }
}

void pauseFor(uint64_t ns) {
  const timespec time{0, static_cast<long>(ns)};
  ::nanosleep(&time, nullptr);
}

std::atomic_ref<uint8_t> cell(const std::shared_ptr<Mapping>& states, uint32_t group) {
  return std::atomic_ref<uint8_t>(states->data()[group]);
}

}  // namespace

PageLoader::PageLoader(PagerCore& core, Parts parts)
    : counters_(std::move(parts.counters)),
      core_(core),
      source_(std::move(parts.source)),
      store_(std::move(parts.store)),
      states_(std::move(parts.states)),
      hot_(core.area.groups(), false),
      events_(std::move(parts.events)) {
  std::vector<bool> named(core_.area.groups(), false);
  uint32_t missing = 0;
  uint32_t hotMissing = 0;
  const auto want = [&](uint32_t group, bool isHot) {
    if (named[group] || state(group) != GroupState::kMissing) return;
    named[group] = true;
    hot_[group] = isHot;
    order_.push_back(group);
    missing++;
    if (isHot) hotMissing++;
  };
  for (size_t index = 0; index < parts.order.size(); index++) want(parts.order[index], index < parts.hotCount);
  for (uint32_t group = 0; group < core_.area.groups(); group++) want(group, false);
  missing_.store(missing);
  hotMissing_.store(hotMissing);
  if (parts.canMove && store_ == nullptr && (core_.fault.features() & UserFault::kMove) != 0) {
    block_ = Mapping::anonymous(counters_, kBlockBytes, kBlockBytes);
    ::madvise(block_->data(), kBlockBytes, MADV_HUGEPAGE);
  }
}

PageLoader::~PageLoader() {
  stop();
}

GroupState PageLoader::state(uint32_t group) const {
  return static_cast<GroupState>(cell(states_, group).load(std::memory_order_acquire));
}

bool PageLoader::present(uint32_t group) const {
  const GroupState now = state(group);
  return now != GroupState::kMissing && now != GroupState::kLoading && now != GroupState::kFailed;
}

LoadStats PageLoader::stats() const {
  return {missing_.load(), hotMissing_.load(), faults_.load(), retries_.load(), faultMaxNs_.load(), faultNs_.load()};
}

bool PageLoader::claim(uint32_t group) {
  auto expected = static_cast<uint8_t>(GroupState::kMissing);
  return cell(states_, group)
      .compare_exchange_strong(expected, static_cast<uint8_t>(GroupState::kLoading), std::memory_order_acq_rel);
}

void PageLoader::load(uint32_t group, GroupState as) {
  if (claim(group)) {
    loadClaimed(faultHand_, group, as);
  } else if (state(group) == GroupState::kLoading) {
    urgent_.store(group, std::memory_order_release);
  }
}

void PageLoader::again(uint32_t group) {
  if (store_ == nullptr || core_.failed || !present(group)) return;
  // Refused, it is not in the store.
  (void)core_.fault.proceed(core_.area.at(group), core_.area.bytesOf(group), core_.intercept.wanted(group));
}

bool PageLoader::read(Hand& hand, uint32_t group, uint8_t* bytes, bool* isZero, LoadFailure* failure) {
  const auto once = [&] {
    return store_ != nullptr ? store_->bring(group, *source_, bytes) : source_->read(group, bytes);
  };
  hand.group.store(group, std::memory_order_relaxed);
  hand.startedNs.store(monotonicNs(), std::memory_order_release);
  GroupReadResult result = once();
  uint64_t pauseNs = kFirstPauseNs;
  for (int attempt = 1; attempt < kAttempts && result.failed() && mayHelpAgain(result); attempt++) {
    if (ending_.load(std::memory_order_acquire)) break;
    retries_.fetch_add(1, std::memory_order_relaxed);
    pauseFor(pauseNs);
    pauseNs *= 4;
    result = once();
  }
  hand.startedNs.store(0, std::memory_order_release);
  if (result.failed()) {
    *failure = {whyOf(result.kind), group, result.file, result.fileOffset, result.errnoNumber};
    return false;
  }
  *isZero = result.kind == GroupReadResult::Kind::kZero;
  if (*isZero) std::fill_n(bytes, kGroupBytes, uint8_t{0});
  return true;
}

int PageLoader::putIn(uint32_t group, const uint8_t* bytes, bool isZero) {
  uint8_t* const to = core_.area.at(group);
  const size_t size = core_.area.bytesOf(group);
  const bool wanted = core_.intercept.wanted(group);
  // UFFDIO_ZEROPAGE knows no protection.
  if (isZero && !wanted) return core_.fault.zero(to, size);
  if (!isZero && store_ != nullptr) return core_.fault.proceed(to, size, wanted);
  return core_.fault.copy(to, bytes, size, wanted);
}

bool PageLoader::settle(uint32_t group, GroupState as) {
  cell(states_, group).store(static_cast<uint8_t>(as), std::memory_order_release);
  bool tell = missing_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  if (hot_[group] && hotMissing_.fetch_sub(1, std::memory_order_acq_rel) == 1) tell = true;
  return tell;
}

void PageLoader::loadClaimed(Hand& hand, uint32_t group, GroupState as) {
  bool isZero = false;
  LoadFailure failure;
  if (read(hand, group, hand.bytes.data(), &isZero, &failure)) {
    install(group, hand.bytes.data(), isZero, as);
  } else {
    events_.failed(failure);
  }
}

void PageLoader::install(uint32_t group, const uint8_t* bytes, bool isZero, GroupState as) {
  bool tell = false;
  int error;
  {
    const std::lock_guard lock(core_.mutex);
    if (core_.failed) return;
    error = putIn(group, bytes, isZero);
    if (error == 0) {
      tell = settle(group, as);
      if (waiters_.load(std::memory_order_relaxed) > 0) changed_.notify_all();
    }
  }
  if (error != 0) events_.failed({LoadFailure::Why::kInstall, group, 0, 0, error});
  if (tell) events_.progress();
}

void PageLoader::onFaults(uint32_t waiting) {
  if (waiting > 0) faults_.fetch_add(waiting, std::memory_order_relaxed);
  waitingFaults_.store(waiting, std::memory_order_release);
  if (waiting == 0) futexWake(&waitingFaults_);
}

void PageLoader::tookNs(uint64_t ns) {
  faultNs_.fetch_add(ns, std::memory_order_relaxed);
  if (ns > faultMaxNs_.load(std::memory_order_relaxed)) faultMaxNs_.store(ns, std::memory_order_relaxed);
}

bool PageLoader::waitFor(uint32_t group, uint64_t deadlineNs) {
  std::unique_lock lock(core_.mutex);
  waiters_.fetch_add(1, std::memory_order_relaxed);
  while (!present(group) && !core_.failed) {
    const uint64_t nowNs = monotonicNs();
    if (nowNs >= deadlineNs) break;
    changed_.wait_for(lock, std::chrono::nanoseconds(deadlineNs - nowNs));
  }
  waiters_.fetch_sub(1, std::memory_order_relaxed);
  return present(group);
}

void PageLoader::tellWaiters() {
  const std::lock_guard lock(core_.mutex);
  changed_.notify_all();
}

bool PageLoader::stuckSince(uint64_t sinceNs, uint32_t* group) const {
  for (const Hand* hand : {&faultHand_, &fillHand_}) {
    const uint64_t startedNs = hand->startedNs.load(std::memory_order_acquire);
    if (startedNs == 0 || startedNs > sinceNs) continue;
    *group = hand->group.load(std::memory_order_relaxed);
    return true;
  }
  return false;
}

void PageLoader::poisonMissing() {
  const auto isMissing = [this](uint32_t group) { return !present(group); };
  core_.area.eachRun(isMissing, [this](uint32_t first, uint32_t count) {
    uint8_t* const to = core_.area.at(first);
    const size_t bytes = core_.area.bytesOf(first, count);
    const bool canPoison = (core_.fault.features() & UserFault::kPoison) != 0;
    if (!canPoison || core_.fault.poison(to, bytes) != 0) core_.fault.zero(to, bytes);
    core_.fault.wake(to, bytes);
  });
  markFailed();
}

void PageLoader::shutMissing() {
  const auto isMissing = [this](uint32_t group) { return !present(group); };
  bool refused = false;
  core_.area.eachRun(isMissing, [&](uint32_t first, uint32_t count) {
    refused = refused || ::mprotect(core_.area.at(first), core_.area.bytesOf(first, count), PROT_NONE) != 0;
  });
  if (refused) poisonMissing();
  (void)core_.fault.wake(core_.area.start(), core_.area.bytes());
  markFailed();
}

void PageLoader::markFailed() {
  for (uint32_t group = 0; group < core_.area.groups(); group++) {
    if (present(group)) continue;
    cell(states_, group).store(static_cast<uint8_t>(GroupState::kFailed), std::memory_order_release);
  }
}

void PageLoader::stop() {
  ending_.store(true, std::memory_order_release);
  futexWakeAll(&waitingFaults_);
}

}  // namespace vivarium

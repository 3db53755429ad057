// See pager.h. What JavaScript asks for, and the failure; the thread is in pager_thread.cc.
#include "memory/pager.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "core/clock.h"
#include "core/failure.h"
#include "memory/quiet_thread.h"

namespace vivarium {
namespace {

constexpr uint64_t kJoinNs = 2'000'000'000;
constexpr uint64_t kLooksPerTimeout = 4;

[[noreturn]] void lacks(const char* feature, const char* what) {
  throw Failure(FailureKind::kCapability, feature, ENOSYS, what);
}

}  // namespace

Pager::Pager(std::shared_ptr<Runtime> runtime, const GuestMemory& memory)
    : runtime_(std::move(runtime)),
      backing_(memory.backing()),
      store_(memory.store()),
      core_(memory.mapping()),
      source_(runtime_->ready->newSource()),
      wake_(runtime_->counters, 0),
      states_(Mapping::anonymous(runtime_->counters, core_.area.groups())) {}

Pager::~Pager() {
  close();
}

void Pager::checkOpen() const {
  if (closed_) throwClosed("pager");
}

void Pager::guard(std::weak_ptr<VcpuGroup> vcpus) {
  const std::lock_guard lock(core_.mutex);
  vcpus_ = std::move(vcpus);
  if (!core_.failed) return;
  if (const auto group = vcpus_.lock()) group->condemn();
}

void Pager::startThread() {
  if (threadStarted_) return;
  thread_ = startQuietThread(runtime_->counters, "vivarium-pager", ThreadDuty::kPager,
                             [self = shared_from_this()] { self->run(); });
  threadStarted_ = true;
}

// --- missing pages ---

void Pager::serve(std::shared_ptr<GroupSource> source, std::vector<uint32_t> order, uint32_t hotCount,
                  uint64_t readTimeoutNs) {
  checkOpen();
  if (loader_ != nullptr) throw Failure(FailureKind::kState, "pager", EBUSY, "it serves a source already");
  if (source->groups() != groups()) throwRange("source: it has " + std::to_string(source->groups()) + " groups");
  const uint64_t features = core_.fault.features();
  if (backing_ != Backing::kAnonymous && (features & UserFault::kMissingShmem) == 0) {
    lacks("UFFD_FEATURE_MISSING_SHMEM", "a memfd can't be filled by a pager here");
  }
  if (backing_ == Backing::kStore && (features & UserFault::kMinorShmem) == 0) {
    lacks("UFFD_FEATURE_MINOR_SHMEM", "clones can't share memory here (Linux 5.14)");
  }
  served_ = store_ != nullptr ? store_->runs() : runsWithData(*source);
  std::fill_n(states_->data(), groups(), static_cast<uint8_t>(GroupState::kFilled));
  for (const GroupRun& run : served_) {
    std::fill_n(states_->data() + run.first, run.count, static_cast<uint8_t>(GroupState::kMissing));
  }
  PageLoader::Events events;
  events.progress = [this] {
    runtime_->ready->put(source_);
    knock();  // the thread looks whether it has nothing left to watch
  };
  events.failed = [this](const LoadFailure& failure) { fail(failure); };
  {
    const std::lock_guard lock(core_.mutex);
    const bool canMove = backing_ == Backing::kAnonymous;
    loader_ =
        std::make_unique<PageLoader>(core_, PageLoader::Parts{runtime_->counters, std::move(source), store_, states_,
                                                              std::move(order), hotCount, canMove, std::move(events)});
    watchesMissing_ = true;
    watch();
  }
  loading_.store(loader_.get(), std::memory_order_release);
  startThread();
  readTimeoutNs_ = readTimeoutNs;
  if (loader_->complete()) {
    knock();
    return;
  }
  EventLoop& loop = runtime_->events->loop();
  loop.start();
  timer_ = loop.addTimer([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->look();
  });
  loop.setTimer(timer_, monotonicNs() + readTimeoutNs_ / kLooksPerTimeout);
}

void Pager::fill() {
  checkOpen();
  if (loader_ == nullptr) throw Failure(FailureKind::kState, "pager", EINVAL, "it serves no source");
  if (!loader_->complete()) loader_->startFilling(shared_from_this());
}

// On the event thread: a read that never comes back must not hold vCPUs for ever.
void Pager::look() {
  if (ending_.load(std::memory_order_acquire) || loader_->complete()) return;
  const uint64_t nowNs = monotonicNs();
  uint32_t group;
  if (nowNs > readTimeoutNs_ && loader_->stuckSince(nowNs - readTimeoutNs_, &group)) {
    fail({LoadFailure::Why::kTimeout, group, 0, 0, ETIMEDOUT});
    return;
  }
  runtime_->events->loop().setTimer(timer_, nowNs + readTimeoutNs_ / kLooksPerTimeout);
}

Pager::Ensured Pager::ensure(uint64_t offset, uint64_t bytes, uint64_t timeoutNs) {
  PageLoader* const loader = loading_.load(std::memory_order_acquire);
  if (loader == nullptr || bytes == 0) return Ensured::kPresent;
  const auto first = static_cast<uint32_t>(offset / kGroupBytes);
  const auto last = static_cast<uint32_t>((offset + bytes - 1) / kGroupBytes);
  bool asked = false;
  {
    const std::lock_guard lock(askedMutex_);
    for (uint32_t group = first; group <= last; group++) {
      if (loader->present(group)) continue;
      asked_.push_back(group);
      asked = true;
    }
  }
  if (!asked) return Ensured::kPresent;
  knock();
  const uint64_t deadlineNs = monotonicNs() + timeoutNs;
  for (uint32_t group = first; group <= last; group++) {
    if (loader->waitFor(group, deadlineNs)) continue;
    const std::lock_guard lock(core_.mutex);
    return core_.failed ? Ensured::kFailed : Ensured::kTimeout;
  }
  return Ensured::kPresent;
}

void Pager::fail(const LoadFailure& failure) {
  std::shared_ptr<VcpuGroup> vcpus;
  {
    const std::lock_guard lock(core_.mutex);
    if (core_.failed) return;
    core_.failed = true;
    failure_ = failure;
    vcpus = vcpus_.lock();
  }
  if (vcpus != nullptr) vcpus->condemn();
  {
    const std::lock_guard lock(core_.mutex);
    core_.intercept.release();
    if (failure.why == LoadFailure::Why::kClosed) {
      loader_->shutMissing();
    } else {
      loader_->poisonMissing();
    }
  }
  loader_->stop();
  loader_->tellWaiters();
  if (failure.why != LoadFailure::Why::kClosed) runtime_->ready->put(source_);
}

// --- the intercept ---

// The kernel tells what was touched of it: a page that nobody touched is not there, and a huge page counts as a whole.
void Pager::noteTouched() {
  checkOpen();
  if (loader_ == nullptr) return;
  constexpr uint64_t kPageBytes = GuestMemory::kPageBytes;
  std::vector<uint8_t> resident;
  const auto look = [&](uint32_t first, uint32_t end) {
    if (first == end) return;
    const size_t bytes = core_.area.bytesOf(first, end - first);
    resident.resize((bytes + kPageBytes - 1) / kPageBytes);
    if (::mincore(core_.area.at(first), bytes, resident.data()) != 0) return;
    for (size_t page = 0; page < resident.size(); page++) {
      if ((resident[page] & 1) == 0) continue;
      std::atomic_ref<uint8_t> state(states_->data()[first + page * kPageBytes / kGroupBytes]);
      state.store(static_cast<uint8_t>(GroupState::kFaulted), std::memory_order_relaxed);
    }
  };
  uint32_t at = 0;
  for (const GroupRun& run : served_) {
    look(at, run.first);
    at = run.first + run.count;
  }
  look(at, groups());
}

// What is wanted now, run by run: a clone's memory is of several mappings, and only what is missing is watched for
// that.
void Pager::watch() {
  const auto watchRun = [this](GroupRun run, UserFault::Watch what) {
    if (run.count > 0) core_.fault.watch(core_.area.at(run.first), core_.area.bytesOf(run.first, run.count), what);
  };
  uint32_t at = 0;
  const auto watchRest = [&](uint32_t end) {
    if (watchesWrites_) watchRun({at, end - at}, {false, false, true});
  };
  if (watchesMissing_) {
    for (const GroupRun& run : served_) {
      watchRest(run.first);
      watchRun(run, {true, backing_ == Backing::kStore, watchesWrites_});
      at = run.first + run.count;
    }
  }
  watchRest(groups());
}

void Pager::watchWrites() {
  checkOpen();
  if (watchesWrites_) return;
  const uint64_t features = core_.fault.features();
  if ((features & UserFault::kWriteProtect) == 0) {
    lacks("UFFD_FEATURE_PAGEFAULT_FLAG_WP", "writes to guest memory can't be intercepted here (Linux 5.7)");
  }
  if (backing_ != Backing::kAnonymous && (features & UserFault::kWpShmem) == 0) {
    lacks("UFFD_FEATURE_WP_HUGETLBFS_SHMEM", "writes to a memfd can't be intercepted here (Linux 5.19)");
  }
  if (backing_ != Backing::kMemfd && (features & UserFault::kWpUnpopulated) == 0) {
    lacks("UFFD_FEATURE_WP_UNPOPULATED", "first writes to anonymous memory can't be intercepted here (Linux 6.4)");
  }
  watchesWrites_ = true;
  try {
    watch();
  } catch (...) {
    watchesWrites_ = false;
    throw;
  }
}

void Pager::prepare(uint32_t bufferGroups) {
  wanted_.fetch_add(1);
  const std::lock_guard lock(core_.mutex);
  wanted_.fetch_sub(1);
  const auto phase = core_.intercept.phase();
  if (phase == WriteIntercept::Phase::kArmed || phase == WriteIntercept::Phase::kActive) {
    throw Failure(FailureKind::kState, "pager", EBUSY, "an intercept is under way");
  }
  if (core_.failed) throw Failure(FailureKind::kState, "pager", EIO, "guest memory is not whole");
  watchWrites();
  core_.intercept.prepare(bufferGroups);
  startThread();
}

// Under the core's mutex.
void Pager::checkReady() const {
  checkOpen();
  if (core_.intercept.phase() == WriteIntercept::Phase::kActive) {
    throw Failure(FailureKind::kState, "pager", EBUSY, "an intercept is under way");
  }
  if (core_.failed) throw Failure(FailureKind::kState, "pager", EIO, "guest memory is not whole");
  if (!core_.intercept.prepared()) throw Failure(FailureKind::kState, "pager", EINVAL, "it was not prepared");
}

void Pager::arm(std::span<const GroupRun> runs) {
  wanted_.fetch_add(1);
  const std::lock_guard lock(core_.mutex);
  wanted_.fetch_sub(1);
  checkReady();
  core_.intercept.arm(runs, [this](uint32_t group) { return loader_ == nullptr || loader_->present(group); });
}

void Pager::begin(std::span<const GroupRun> runs, std::shared_ptr<GroupSink> sink) {
  wanted_.fetch_add(1);
  const std::lock_guard lock(core_.mutex);
  wanted_.fetch_sub(1);
  checkReady();
  walking_.store(false, std::memory_order_release);
  core_.intercept.begin(runs, std::move(sink),
                        [this](uint32_t group) { return loader_ == nullptr || loader_->present(group); });
}

void Pager::walkOn() {
  checkOpen();
  walking_.store(true, std::memory_order_release);
  knock();
}

void Pager::release() {
  wanted_.fetch_add(1);
  const std::lock_guard lock(core_.mutex);
  wanted_.fetch_sub(1);
  core_.intercept.release();
}

// Under the core's mutex. What writes are watched in stays so: to end it the kernel goes through all page tables with
// the address space locked, which would hold the vCPUs.
void Pager::unwatchIfWhole() {
  if (!watchesMissing_ || watchesWrites_ || core_.failed || !loader_->complete()) return;
  // Refused, it is tried again with the next wake.
  watchesMissing_ = core_.fault.unwatch(core_.area.start(), core_.area.bytes()) != 0;
}

// --- the end ---

Pager::Status Pager::status() {
  wanted_.fetch_add(1);
  const std::lock_guard lock(core_.mutex);
  wanted_.fetch_sub(1);
  Status status{core_.intercept.phase(), core_.intercept.stats(), loader_ != nullptr, {}, core_.failed, failure_};
  if (loader_ != nullptr) status.load = loader_->stats();
  return status;
}

void Pager::close() {
  if (closed_) return;
  if (loader_ != nullptr && !loader_->complete()) fail({LoadFailure::Why::kClosed, 0, 0, 0, EBADF});
  wanted_.fetch_add(1);
  {
    const std::lock_guard lock(core_.mutex);
    wanted_.fetch_sub(1);
    closed_ = true;
    core_.intercept.release();
    // Refused, it ends with the descriptor.
    if (watchesMissing_ || watchesWrites_) (void)core_.fault.unwatch(core_.area.start(), core_.area.bytes());
    watchesMissing_ = watchesWrites_ = false;
  }
  ending_.store(true, std::memory_order_release);
  knock();
  if (timer_ != 0) runtime_->events->loop().remove(timer_);
  if (loader_ != nullptr) loader_->stop();
  if (threadStarted_) joinOrLeave(thread_, kJoinNs);
  threadStarted_ = false;
  if (loader_ != nullptr) loader_->ended(kJoinNs);
  source_->retire();
}

}  // namespace vivarium

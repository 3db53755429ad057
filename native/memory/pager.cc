// See pager.h. What JavaScript asks for, and the failure; the thread is in pager_thread.cc.
#include "memory/pager.h"

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

Pager::Pager(std::shared_ptr<Runtime> runtime, std::shared_ptr<Mapping> memory, bool isShared)
    : runtime_(std::move(runtime)),
      isShared_(isShared),
      core_(std::move(memory)),
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
  thread_ = startQuietThread(runtime_->counters, "vivarium-pager", [self = shared_from_this()] { self->run(); });
  threadStarted_ = true;
}

// --- missing pages ---

void Pager::serve(std::shared_ptr<GroupSource> source, std::vector<uint32_t> order, uint32_t hotCount,
                  uint64_t readTimeoutNs) {
  checkOpen();
  if (loader_ != nullptr) throw Failure(FailureKind::kState, "pager", EBUSY, "it serves a source already");
  if (source->groups() != groups()) throwRange("source: it has " + std::to_string(source->groups()) + " groups");
  if (isShared_ && (core_.fault.features() & UserFault::kMissingShmem) == 0) {
    lacks("UFFD_FEATURE_MISSING_SHMEM", "a memfd can't be filled by a pager here");
  }
  PageLoader::Events events;
  events.progress = [this] {
    runtime_->ready->put(source_);
    knock();  // the thread looks whether it has nothing left to watch
  };
  events.failed = [this](const LoadFailure& failure) { fail(failure); };
  {
    const std::lock_guard lock(core_.mutex);
    loader_ = std::make_unique<PageLoader>(runtime_->counters, core_, std::move(source), states_, std::move(order),
                                           hotCount, std::move(events));
    core_.fault.watch(core_.area.start(), core_.area.bytes(), true, false);
    watchesMissing_ = true;
  }
  loading_.store(loader_.get(), std::memory_order_release);
  startThread();
  loader_->startFilling(shared_from_this());
  readTimeoutNs_ = readTimeoutNs;
  EventLoop& loop = runtime_->events->loop();
  loop.start();
  timer_ = loop.addTimer([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->look();
  });
  loop.setTimer(timer_, monotonicNs() + readTimeoutNs_ / kLooksPerTimeout);
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
    loader_->poisonMissing();
  }
  loader_->stop();
  loader_->tellWaiters();
  if (failure.why != LoadFailure::Why::kClosed) runtime_->ready->put(source_);
}

// --- the intercept ---

void Pager::watchWrites() {
  checkOpen();
  if (watchesWrites_) return;
  const uint64_t features = core_.fault.features();
  if ((features & UserFault::kWriteProtect) == 0) {
    lacks("UFFD_FEATURE_PAGEFAULT_FLAG_WP", "writes to guest memory can't be intercepted here (Linux 5.7)");
  }
  if (isShared_ && (features & UserFault::kWpShmem) == 0) {
    lacks("UFFD_FEATURE_WP_HUGETLBFS_SHMEM", "writes to a memfd can't be intercepted here (Linux 5.19)");
  }
  if (!isShared_ && (features & UserFault::kWpUnpopulated) == 0) {
    lacks("UFFD_FEATURE_WP_UNPOPULATED", "first writes to anonymous memory can't be intercepted here (Linux 6.4)");
  }
  core_.fault.watch(core_.area.start(), core_.area.bytes(), watchesMissing_, true);
  watchesWrites_ = true;
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

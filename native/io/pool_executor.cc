// See pool_executor.h. At the end a thread that waits in the kernel is kicked out of it again and again, since a kick
// that comes just before the system call is lost.
#include "io/pool_executor.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/clock.h"
#include "core/failure.h"
#include "thread/kick.h"
#include "thread/thread_fence.h"

namespace vivarium {
namespace {

constexpr uint64_t kKickAgainNs = 2'000'000;

size_t bytesOf(std::span<const iovec> pieces) {
  size_t sum = 0;
  for (const iovec& piece : pieces) sum += piece.iov_len;
  return sum;
}

// What is in the page cache, whole; anything else is for the threads.
bool readCached(const IoRequest& request, int32_t* result) {
  if (request.op != IoOp::kRead) return false;
  const size_t wanted = bytesOf(request.pieces);
  const ssize_t got = ::preadv2(request.fd, request.pieces.data(), static_cast<int>(request.pieces.size()),
                                static_cast<off_t>(request.offset), RWF_NOWAIT);
  if (got < 0 || static_cast<size_t>(got) != wanted) return false;
  *result = static_cast<int32_t>(got);
  return true;
}

}  // namespace

PoolExecutor::PoolExecutor(const CountersPtr& counters, IoWake wake)
    : counters_(counters), wake_(std::move(wake)), jobs_(kIoEntries), waiting_(kIoEntries) {
  done_.reserve(kIoEntries);
  installKickHandler();
  startThreads();
}

PoolExecutor::~PoolExecutor() {
  stop();
}

void PoolExecutor::startThreads() {
  const BlockSignals blocked;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  int error = 0;
  while (threads_.size() < kThreads && error == 0) {
    pthread_t thread;
    error = ::pthread_create(
        &thread, &attributes,
        [](void* self) -> void* {
          auto* pool = static_cast<PoolExecutor*>(self);
          const Counted counted(pool->counters_, &Counters::threads);
          pool->loop();
          return nullptr;
        },
        this);
    if (error == 0) threads_.push_back(thread);
  }
  ::pthread_attr_destroy(&attributes);
  // Fewer are enough to go on with.
  if (threads_.empty()) throwSyscall("pthread_create", error, "vivarium-io");
}

void PoolExecutor::submit(std::span<const IoRequest> batch) {
  size_t handedOver = 0;
  for (const IoRequest& request : batch) {
    int32_t result;
    if (readCached(request, &result)) {
      const std::lock_guard lock(mutex_);
      done_.push_back(IoCompletion{request.tag, result});
      continue;
    }
    Job& job = jobs_[request.tag];
    job.op = request.op;
    job.fd = request.fd;
    job.offset = request.offset;
    job.lengthBytes = request.lengthBytes;
    job.pieces.assign(request.pieces.begin(), request.pieces.end());
    const std::lock_guard lock(mutex_);
    waiting_[(waitingHead_ + waitingCount_++) % kIoEntries] = request.tag;
    handedOver++;
  }
  if (handedOver == 0) return;
  for (size_t thread = 0; thread < std::min(handedOver, threads_.size()); thread++) work_.notify_one();
}

size_t PoolExecutor::reap(std::span<IoCompletion> completions) {
  const std::lock_guard lock(mutex_);
  const size_t count = std::min(completions.size(), done_.size());
  std::copy_n(done_.begin(), count, completions.begin());
  done_.erase(done_.begin(), done_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

int32_t PoolExecutor::carryOut(const Job& job) {
  const auto offset = static_cast<off_t>(job.offset);
  const auto pieces = static_cast<int>(job.pieces.size());
  ssize_t result = -1;
  do {
    switch (job.op) {
      case IoOp::kRead:
        result = ::preadv(job.fd, job.pieces.data(), pieces, offset);
        // A stream has no offset; io_uring does not mind.
        if (result < 0 && errno == ESPIPE) result = ::readv(job.fd, job.pieces.data(), pieces);
        break;
      case IoOp::kWrite:
        result = ::pwritev(job.fd, job.pieces.data(), pieces, offset);
        if (result < 0 && errno == ESPIPE) result = ::writev(job.fd, job.pieces.data(), pieces);
        break;
      case IoOp::kSync: result = ::fdatasync(job.fd); break;
      case IoOp::kPunchHole:
      case IoOp::kZeroRange:
        result = ::fallocate(job.fd, allocateMode(job.op), offset, static_cast<off_t>(job.lengthBytes));
        break;
    }
  } while (result < 0 && errno == EINTR && !ending_.load(std::memory_order_relaxed));
  return static_cast<int32_t>(result < 0 ? -errno : result);
}

void PoolExecutor::loop() {
  ::pthread_setname_np(::pthread_self(), "vivarium-io");
  fenceThread(ThreadDuty::kIo);
  unblockKick();
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return waitingCount_ > 0 || ending_.load(std::memory_order_relaxed); });
    if (ending_.load(std::memory_order_relaxed)) return;
    const uint32_t tag = waiting_[waitingHead_];
    waitingHead_ = (waitingHead_ + 1) % kIoEntries;
    waitingCount_--;
    lock.unlock();
    const int32_t result = carryOut(jobs_[tag]);
    lock.lock();
    done_.push_back(IoCompletion{tag, result});
    lock.unlock();
    wake_();
    lock.lock();
  }
}

void PoolExecutor::stop() {
  {
    const std::lock_guard lock(mutex_);
    ending_.store(true, std::memory_order_relaxed);
  }
  work_.notify_all();
  for (const pthread_t thread : threads_) {
    for (;;) {
      const uint64_t deadlineNs = monotonicNs() + kKickAgainNs;
      const timespec deadline{static_cast<time_t>(deadlineNs / 1'000'000'000u),
                              static_cast<long>(deadlineNs % 1'000'000'000u)};
      if (::pthread_clockjoin_np(thread, nullptr, CLOCK_MONOTONIC, &deadline) != ETIMEDOUT) break;
      sendKick(thread);
    }
  }
  threads_.clear();
}

}  // namespace vivarium

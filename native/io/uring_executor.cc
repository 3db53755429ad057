// See uring_executor.h. The ring is muted while this thread submits and looks itself, so that what completes at once
// costs no signal; it is unmuted before the last look, so that nothing is missed.
#include "io/uring_executor.h"

#include <poll.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr uint8_t kOperations[] = {IORING_OP_READV, IORING_OP_WRITEV,    IORING_OP_READ,        IORING_OP_WRITE,
                                   IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_ASYNC_CANCEL};
// Linux' own numbers for a system call that is to be made again (include/linux/errno.h). A read that was interrupted
// ends with one of them (seen on 9p with O_NONBLOCK, Linux 6.1); only of a write the kernel says EINTR.
constexpr int32_t kFirstRestart = 512;
constexpr int32_t kLastRestart = 516;
constexpr uint64_t kCancelTag = UINT64_MAX;
constexpr int kCancelAgainMs = 10;

int32_t told(int32_t result) {
  return result <= -kFirstRestart && result >= -kLastRestart ? -EINTR : result;
}

}  // namespace

void UringExecutor::keepInReserve(uint32_t count) {
  Uring::keepInReserve(count, kIoEntries, kOperations);
}

UringExecutor::UringExecutor(const CountersPtr& counters, FdWatcher& watcher, IoWake wake)
    : watcher_(watcher), wake_(std::move(wake)), busy_(kIoEntries) {
  ring_ = std::make_unique<Uring>(counters, kIoEntries, kOperations);
  eventFd_ = std::make_shared<EventFd>(counters, 0);
  ring_->signalTo(eventFd_->fd());
  refused_.reserve(kIoEntries);
  // The handler keeps it open while it is called.
  key_ = watcher_.addSignal(eventFd_->fd(), [eventFd = eventFd_, tell = wake_] { tell(); });
}

UringExecutor::~UringExecutor() {
  stop();
}

void UringExecutor::fill(io_uring_sqe* entry, const IoRequest& request) {
  entry->fd = request.fd;
  entry->off = request.offset;
  entry->user_data = request.tag;
  switch (request.op) {
    case IoOp::kRead:
    case IoOp::kWrite: {
      const bool read = request.op == IoOp::kRead;
      if (request.pieces.size() == 1 && request.pieces[0].iov_len <= INT32_MAX) {
        entry->opcode = read ? IORING_OP_READ : IORING_OP_WRITE;
        entry->addr = reinterpret_cast<uint64_t>(request.pieces[0].iov_base);
        entry->len = static_cast<uint32_t>(request.pieces[0].iov_len);
      } else {
        entry->opcode = read ? IORING_OP_READV : IORING_OP_WRITEV;
        entry->addr = reinterpret_cast<uint64_t>(request.pieces.data());
        entry->len = static_cast<uint32_t>(request.pieces.size());
      }
      break;
    }
    case IoOp::kSync:
      entry->opcode = IORING_OP_FSYNC;
      entry->off = 0;
      entry->fsync_flags = IORING_FSYNC_DATASYNC;
      break;
    case IoOp::kPunchHole:
    case IoOp::kZeroRange:
      entry->opcode = IORING_OP_FALLOCATE;
      entry->addr = request.lengthBytes;
      entry->len = static_cast<uint32_t>(allocateMode(request.op));
      break;
  }
}

void UringExecutor::submit(std::span<const IoRequest> batch) {
  ring_->mute(true);
  for (const IoRequest& request : batch) {
    busy_[request.tag] = true;
    inFlight_++;
    // submit() leaves no entry filled and the queue holds no more than the ring, so there is always room.
    fill(ring_->next(), request);
  }
  if (const int error = ring_->submit()) giveUp(error);
}

void UringExecutor::giveUp(int error) {
  // EBUSY: completions wait for room, which is the same to the caller as no memory at the moment.
  const int32_t result = error == EBUSY ? -EAGAIN : -error;
  while (ring_->filled() > 0) {
    const auto tag = static_cast<uint32_t>(ring_->takeBack()->user_data);
    complete(tag);
    refused_.push_back(IoCompletion{tag, result});
  }
}

size_t UringExecutor::reap(std::span<IoCompletion> completions) {
  size_t count = 0;
  while (count < completions.size() && !refused_.empty()) {
    completions[count++] = refused_.back();
    refused_.pop_back();
  }
  for (const bool muted : {true, false}) {
    if (!muted) ring_->mute(false);
    uint64_t userData;
    int32_t result;
    while (count < completions.size() && ring_->reap(&userData, &result)) {
      const auto tag = static_cast<uint32_t>(userData);
      complete(tag);
      completions[count++] = IoCompletion{tag, told(result)};
    }
  }
  return count;
}

void UringExecutor::cancelAll() {
  for (uint32_t tag = 0; tag < kIoEntries; tag++) {
    if (!busy_[tag]) continue;
    io_uring_sqe* entry = ring_->next();
    if (entry == nullptr) break;
    entry->opcode = IORING_OP_ASYNC_CANCEL;
    entry->fd = -1;
    entry->addr = tag;
    entry->user_data = kCancelTag;
  }
  if (ring_->submit() != 0) {
    while (ring_->filled() > 0) ring_->takeBack();
  }
}

void UringExecutor::stop() {
  if (ring_ == nullptr) return;
  watcher_.remove(key_);
  // A request that is on its way from one state to another in the kernel may miss a cancellation: again, until all
  // have ended.
  while (inFlight_ > 0) {
    cancelAll();
    ring_->runCompletions();
    uint64_t userData;
    int32_t result;
    while (ring_->reap(&userData, &result)) {
      if (userData != kCancelTag) complete(static_cast<uint32_t>(userData));
    }
    if (inFlight_ == 0) break;
    pollfd completion{ring_->fd(), POLLIN, 0};
    ::poll(&completion, 1, kCancelAgainMs);
  }
  ring_.reset();
  eventFd_.reset();
}

}  // namespace vivarium

// See group_pool.h.
#include "snapshot/group_pool.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "core/failure.h"
#include "thread/kick.h"
#include "thread/thread_fence.h"

namespace vivarium {
namespace {

// Takes `moved` bytes off the front.
void advance(iovec*& pieces, size_t& count, size_t moved) {
  while (count > 0 && moved >= pieces->iov_len) {
    moved -= pieces->iov_len;
    pieces++;
    count--;
  }
  if (count == 0) return;
  pieces->iov_base = static_cast<uint8_t*>(pieces->iov_base) + moved;
  pieces->iov_len -= moved;
}

template <typename Call>
int transferFully(Call call, int fd, iovec* pieces, size_t count, uint64_t offset) {
  while (count > 0) {
    const ssize_t moved = call(fd, pieces, static_cast<int>(count), static_cast<off_t>(offset));
    if (moved < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (moved == 0) return -1;
    offset += static_cast<uint64_t>(moved);
    advance(pieces, count, static_cast<size_t>(moved));
  }
  return 0;
}

}  // namespace

GroupPool::GroupPool(std::shared_ptr<Runtime> runtime)
    : runtime_(std::move(runtime)),
      source_(runtime_->ready->newSource()),
      counted_(runtime_->counters, &Counters::groupPools) {}

void GroupPool::startThreads(uint32_t count) {
  const BlockSignals blocked;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 512 * 1024);
  int error = 0;
  count = std::clamp(count, 1u, kMaxThreads);
  while (threads_.size() < count && error == 0) {
    pthread_t thread;
    error = ::pthread_create(
        &thread, &attributes,
        [](void* self) -> void* {
          auto* pool = static_cast<GroupPool*>(self);
          const Counted counted(pool->runtime_->counters, &Counters::threads);
          ::pthread_setname_np(::pthread_self(), "vivarium-groups");
          fenceThread(ThreadDuty::kGroups);
          pool->loop();
          return nullptr;
        },
        this);
    if (error == 0) threads_.push_back(thread);
  }
  ::pthread_attr_destroy(&attributes);
  if (threads_.empty()) throwSyscall("pthread_create", error, "vivarium-groups");
}

void GroupPool::joinThreads() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  work_.notify_all();
  const std::lock_guard lock(joinMutex_);
  for (const pthread_t thread : threads_) ::pthread_join(thread, nullptr);
  threads_.clear();
  source_->retire();
}

int writeFully(int fd, iovec* pieces, size_t count, uint64_t offset) {
  const int error = transferFully(::pwritev, fd, pieces, count, offset);
  return error == -1 ? EIO : error;
}

int readFully(int fd, iovec* pieces, size_t count, uint64_t offset) {
  return transferFully(::preadv, fd, pieces, count, offset);
}

int readFully(int fd, uint8_t* into, size_t length, uint64_t offset) {
  iovec piece{into, length};
  return readFully(fd, &piece, 1, offset);
}

}  // namespace vivarium

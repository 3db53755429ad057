// The threads of a snapshot's writer or reader: they take batches of groups until they are told to end, and wake
// JavaScript by the ready queue. What a batch is, the derived class knows.
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/counters.h"
#include "thread/machine.h"

namespace vivarium {

// The first that failed; later work is dropped.
struct GroupFailure {
  const char* syscall = nullptr;  // null: nothing has failed
  int errnoNumber = 0;
  uint64_t fileOffset = 0;
};

class GroupPool {
 public:
  virtual ~GroupPool() = default;
  GroupPool(const GroupPool&) = delete;
  GroupPool& operator=(const GroupPool&) = delete;

  uint32_t sourceId() const { return source_->id(); }
  // Ends the threads after the batch that each has in hand, and lets go of what they used. Any thread but the pool's;
  // idempotent.
  virtual void close() = 0;

 protected:
  static constexpr uint32_t kMaxThreads = 16;
  static constexpr size_t kBatchGroups = 16;  // 1 MiB

  explicit GroupPool(std::shared_ptr<Runtime> runtime);
  // Throws Failure kSyscall when not one can be had.
  void startThreads(uint32_t count);
  // To be called by close().
  void joinThreads();
  // Any thread, with no lock held.
  void tell() { runtime_->ready->put(source_); }
  // A thread's life: it returns when ending_ is set.
  virtual void loop() = 0;

  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<Source> source_;
  std::mutex mutex_;  // what the derived class says; never held over input or output
  std::condition_variable work_;
  bool ending_ = false;  // under mutex_

 private:
  std::mutex joinMutex_;
  std::vector<pthread_t> threads_;
  Counted counted_;
};

// Full transfers, with EINTR and short counts gone on from; 0 or an errno. A file that ends too early is -1.
int writeFully(int fd, iovec* pieces, size_t count, uint64_t offset);
int readFully(int fd, iovec* pieces, size_t count, uint64_t offset);
int readFully(int fd, uint8_t* into, size_t length, uint64_t offset);

}  // namespace vivarium

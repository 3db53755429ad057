// Requests by a few threads with preadv(2) and pwritev(2), where the kernel offers no io_uring. Reads of cached data
// are done at once on the JavaScript thread (RWF_NOWAIT), as io_uring does them.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "core/counters.h"
#include "io/io_executor.h"

namespace vivarium {

class PoolExecutor : public IoExecutor {
 public:
  PoolExecutor(const CountersPtr& counters, IoWake wake);
  ~PoolExecutor() override;

  const char* kind() const override { return "threads"; }
  void submit(std::span<const IoRequest> batch) override;
  size_t reap(std::span<IoCompletion> completions) override;
  void stop() override;

 private:
  // Its iovecs are copies, kept for the next request with this tag. Whoever holds the tag holds the job.
  struct Job {
    IoOp op;
    int fd;
    uint64_t offset;
    uint64_t lengthBytes;
    std::vector<iovec> pieces;
  };

  static constexpr size_t kThreads = 4;

  void startThreads();
  void loop();
  int32_t carryOut(const Job& job);

  CountersPtr counters_;
  IoWake wake_;
  std::vector<Job> jobs_;           // by tag
  std::vector<pthread_t> threads_;  // JavaScript thread
  std::atomic<bool> ending_{false};
  std::mutex mutex_;  // what follows; never held over a request
  std::condition_variable work_;
  std::vector<uint32_t> waiting_;  // tags, a ring of kIoEntries
  uint32_t waitingHead_ = 0;
  uint32_t waitingCount_ = 0;
  std::vector<IoCompletion> done_;
};

}  // namespace vivarium

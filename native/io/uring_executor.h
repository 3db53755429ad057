// Requests by io_uring. Cached reads complete while they are submitted and are found right then, without a signal;
// the others signal an eventfd, whose watcher turns it into a wake-up.
#pragma once

#include <memory>
#include <vector>

#include "core/event_fd.h"
#include "io/io_executor.h"
#include "io/uring.h"
#include "thread/fd_watcher.h"

namespace vivarium {

class UringExecutor : public IoExecutor {
 public:
  // Rings for later, see Uring.
  static void keepInReserve(uint32_t count);
  // `watcher` outlives stop(). Throws Failure kSyscall where the kernel offers no ring of this kind.
  UringExecutor(const CountersPtr& counters, FdWatcher& watcher, IoWake wake);
  ~UringExecutor() override;

  const char* kind() const override { return "io_uring"; }
  void submit(std::span<const IoRequest> batch) override;
  size_t reap(std::span<IoCompletion> completions) override;
  void stop() override;

 private:
  void fill(io_uring_sqe* entry, const IoRequest& request);
  // The kernel takes no more now: what is left completes with its errno.
  void giveUp(int error);
  void cancelAll();
  void complete(uint32_t tag) {
    busy_[tag] = false;
    inFlight_--;
  }

  FdWatcher& watcher_;
  std::shared_ptr<EventFd> eventFd_;
  std::unique_ptr<Uring> ring_;
  FdWatcher::Key key_ = 0;
  IoWake wake_;
  std::vector<bool> busy_;  // by tag
  uint32_t inFlight_ = 0;
  std::vector<IoCompletion> refused_;  // never reached the kernel
};

}  // namespace vivarium

// The pager of one guest memory: serves its page faults on a thread that never waits for JavaScript. Two duties, which
// may overlap: groups that are still in a snapshot (page_loader.h), and groups that have to be saved before they are
// written (write_intercept.h).
//
// When a group can't be had the order is: no vCPU enters the guest any more; who waits is let go, with poisoned pages
// where the kernel has them; JavaScript is told. Nothing waits for ever: the process lives, the machine does not.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/event_fd.h"
#include "memory/guest_memory.h"
#include "memory/page_loader.h"
#include "memory/write_intercept.h"
#include "thread/machine.h"

namespace vivarium {

class Pager : public std::enable_shared_from_this<Pager> {
 public:
  // Throws Failure kSyscall where there is no userfaultfd for this user.
  Pager(std::shared_ptr<Runtime> runtime, const GuestMemory& memory);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  // JavaScript thread, all of these.
  const std::shared_ptr<Source>& source() const { return source_; }
  uint32_t groups() const { return core_.area.groups(); }
  // The machine whose vCPUs must not run on when a group can't be had.
  void guard(std::weak_ptr<VcpuGroup> vcpus);
  // Everything is missing from now on, but for blocks in which the source has zeros alone, whatever is mapped: for
  // memory that nobody has touched yet. Once.
  void serve(std::shared_ptr<GroupSource> source, std::vector<uint32_t> order, uint32_t hotCount,
             uint64_t readTimeoutNs);
  // Starts to fill in what nobody has touched, which takes a core.
  void fill();
  const std::shared_ptr<Mapping>& states() const { return states_; }
  // Sets the states of groups that serve() left to the kernel to kFaulted where they have been touched since.
  void noteTouched();
  enum class Ensured : uint8_t { kPresent, kFailed, kTimeout };
  // Waits until the groups of [offset, offset + bytes) are there, at most `timeoutNs`.
  Ensured ensure(uint64_t offset, uint64_t bytes, uint64_t timeoutNs);

  // What takes time before the vCPUs stop; protection ahead; and the instant. The names of what the kernel lacks are in
  // Failure kCapability.
  void prepare(uint32_t bufferGroups);
  // May be called again for further groups: it holds up who writes to what is protected, so not for too many at once.
  void arm(std::span<const GroupRun> runs);
  void begin(std::span<const GroupRun> runs, std::shared_ptr<GroupSink> sink);
  // Starts to hand over what nobody writes to: after the vCPUs go on, since it takes a core.
  void walkOn();
  void release();

  struct Status {
    WriteIntercept::Phase phase;
    InterceptStats intercept;
    bool lazy;
    LoadStats load;
    bool failed;
    LoadFailure failure;
  };
  Status status();
  // Ends both duties: groups that are still missing can't be had any more. Idempotent.
  void close();

 private:
  void checkOpen() const;
  void watchWrites();
  void watch();
  void checkReady() const;
  void unwatchIfWhole();
  void startThread();
  void knock() const { wake_.write(1); }
  // The pager's thread.
  void run();
  bool serveFaults();
  void serveAsked();
  enum class Walk : uint8_t { kMore, kSoon, kIdle };
  Walk walk();
  // Any thread but JavaScript's, or close().
  void fail(const LoadFailure& failure);
  void look();

  std::shared_ptr<Runtime> runtime_;
  const Backing backing_;
  const std::shared_ptr<GroupStore> store_;  // of kStore
  PagerCore core_;
  std::vector<GroupRun> served_;  // what serve() has found to be missing
  std::shared_ptr<Source> source_;
  EventFd wake_;
  std::shared_ptr<Mapping> states_;
  std::unique_ptr<PageLoader> loader_;  // made before the thread looks for it, never replaced
  std::atomic<PageLoader*> loading_{nullptr};
  std::weak_ptr<VcpuGroup> vcpus_;  // under the core's mutex
  std::deque<uint32_t> asked_;      // under askedMutex_
  std::mutex askedMutex_;
  std::atomic<int> wanted_{0};  // calls that wait for the core's mutex: the walk makes way
  std::atomic<bool> walking_{false};
  bool watchesMissing_ = false;
  bool watchesWrites_ = false;
  LoadFailure failure_;
  bool threadStarted_ = false;
  pthread_t thread_{};
  std::atomic<bool> ending_{false};
  bool closed_ = false;
  uint64_t readTimeoutNs_ = 0;
  EventLoop::Key timer_ = 0;
};

}  // namespace vivarium

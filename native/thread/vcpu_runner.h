// The thread of one vCPU: runs KVM_RUN, answers published, posted and ignored port accesses itself, and hands every
// other exit to JavaScript through the ready queue.
//
//            resume()                     an exit for JavaScript
//   PARKED ------------> RUNNING ---------------------------------> EXIT
//     ^  <-------------   |  ^  <------------------------------------
//         park request    |            complete()
//                         +--> FAILED (KVM_RUN failed: only the end follows)
//
// Before it parks, KVM finishes a port or MMIO access that is under way: one KVM_RUN with immediate_exit set. That may
// give a further exit (the next part of a split access), which is served the normal way.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/mapping.h"
#include "kvm/vcpu.h"
#include "thread/posted_ring.h"
#include "thread/ready_queue.h"
#include "thread/run_gate.h"

namespace vivarium {

enum class VcpuState : int32_t { kParked = 0, kRunning = 1, kExit = 2, kFailed = 3 };

// Shared with JavaScript; VcpuControl of lib/kvm/native.ts. Native code never decides by what stands in it.
struct VcpuControl {
  int32_t state;
  int32_t runErrno;
  uint64_t exits;
  uint64_t exitsNative;
  uint64_t exitsScript;
  uint64_t kicks;
  // By KVM_EXIT_*; the last one counts all that are beyond it.
  uint64_t reasons[59];
};
static_assert(sizeof(VcpuControl) == 512);

// Whether spinning for JavaScript pays. On a busy host JavaScript comes late, and a thread that spins only takes the
// core away from it: after some spins in vain the thread sleeps at once for the next exits, twice as many each time.
class SpinHistory {
 public:
  bool worthwhile() {
    if (toSkip_ == 0) return true;
    toSkip_--;
    return false;
  }
  void succeeded() {
    failures_ = 0;
    skip_ = kFirstSkip;
  }
  void failed() {
    if (++failures_ < kPatience) return;
    toSkip_ = skip_;
    skip_ = std::min(skip_ * 2, kLongestSkip);
  }

 private:
  static constexpr uint32_t kPatience = 3;
  static constexpr uint32_t kFirstSkip = 8;
  static constexpr uint32_t kLongestSkip = 256;
  uint32_t failures_ = 0;
  uint32_t skip_ = kFirstSkip;
  uint32_t toSkip_ = 0;
};

class VcpuRunner : public std::enable_shared_from_this<VcpuRunner> {
 public:
  // `spinNs` is how long the thread spins for JavaScript before it sleeps.
  VcpuRunner(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready, std::shared_ptr<PostedRing> posted,
             std::shared_ptr<RunGate> gate, std::shared_ptr<std::atomic<uint64_t>> spinNs, std::unique_ptr<Vcpu> vcpu,
             std::string name);

  const Vcpu& vcpu() const { return *vcpu_; }
  const std::shared_ptr<Source>& source() const { return source_; }
  const std::shared_ptr<Mapping>& controlMemory() const { return controlMemory_; }
  VcpuState state() const { return state_.load(std::memory_order_acquire); }

  // JavaScript thread. Throws Failure kState when the thread may be in KVM_RUN, where an ioctl would wait for it.
  void checkReachable() const;
  void resume();
  void park();
  void kick();
  void complete();
  uint64_t threadCpuNs() const;
  int threadId() const { return threadId_.load(std::memory_order_acquire); }

  // Any thread: whether the thread is, or may be, in KVM_RUN; and a return of KVM_RUN now, or of the next one at once.
  // It is entered again if nothing is requested.
  bool insideRun() const { return inside_.load(std::memory_order_seq_cst); }
  void interruptRun();

  // Any thread, any state: the thread leaves as soon as it is out of KVM_RUN. Never waits.
  void requestStop();
  // Any thread but its own, after requestStop(). Needs no JavaScript. Idempotent under the caller's lock.
  void join();
  // After join(): the descriptors.
  void closeVcpu() { vcpu_->close(); }

 private:
  static constexpr uint32_t kStop = 1;
  static constexpr uint32_t kPark = 2;
  static constexpr uint32_t kKick = 4;

  void start();
  void loop();
  bool answerHere(bool* stopped);
  bool serveInScript();
  void parkHere();
  void failHere(int errnoNumber);
  template <typename Ready>
  void sleepUntil(Ready ready);
  void wake();
  void setStateFromThread(VcpuState state);
  void setStateFromScript(VcpuState state);
  static void count(uint64_t& counter);

  CountersPtr counters_;
  std::shared_ptr<ReadyQueue> ready_;
  std::shared_ptr<PostedRing> posted_;
  std::shared_ptr<RunGate> gate_;
  std::shared_ptr<std::atomic<uint64_t>> spinNs_;
  std::unique_ptr<Vcpu> vcpu_;
  std::string name_;
  std::shared_ptr<Source> source_;
  std::shared_ptr<Mapping> controlMemory_;
  VcpuControl* control_;

  std::atomic<VcpuState> state_{VcpuState::kParked};
  std::atomic<uint32_t> requests_{0};
  std::atomic<bool> inside_{false};  // for the gate
  std::atomic<uint32_t> wakeWord_{0};
  std::atomic<bool> sleeping_{false};
  SpinHistory spin_;      // the thread's own
  std::mutex parkMutex_;  // park request and PARKED change together

  pthread_t thread_{};
  bool started_ = false;            // JavaScript thread
  std::atomic<bool> alive_{false};  // between pthread_create and join
  mutable std::mutex threadMutex_;  // join against kick and threadCpuNs
  std::atomic<int> threadId_{0};
  uint64_t cpuNsAtEnd_ = 0;
};

}  // namespace vivarium

// The vCPU threads of one machine, and the hold that takes all of them out of the guest for a moment.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "thread/run_gate.h"
#include "thread/vcpu_runner.h"

namespace vivarium {

class VcpuGroup {
 public:
  // What the group's threads go through.
  const std::shared_ptr<RunGate>& gate() const { return gate_; }
  void add(std::shared_ptr<VcpuRunner> runner);
  // Any thread: whether one is running, or waits in an exit.
  bool anyActive() const;
  // Any thread: the CPU time that each thread has used so far, in ns.
  std::vector<uint64_t> cpuNs() const;
  // Any thread: the threads end as soon as they can.
  void requestStop() const;
  // Any thread: what is in the group, which is empty afterwards.
  std::vector<std::shared_ptr<VcpuRunner>> takeAll();

  // One thread at a time, never a vCPU's: true when every vCPU is outside KVM_RUN and stays there until release().
  // States and requests are as before, and vCPUs that are parked or wait in an exit notice nothing. False, with nothing
  // held, when one did not come out before the deadline (CLOCK_MONOTONIC); it may be stuck in a page fault.
  bool hold(uint64_t deadlineNs);
  void release() { gate_->open(); }

  // Any thread but a vCPU's, for good: every vCPU comes out of KVM_RUN as soon as it can, fails with ECANCELED, and
  // what it came out with is dropped. Never waits.
  void condemn() const;

 private:
  const std::shared_ptr<RunGate> gate_ = std::make_shared<RunGate>();
  mutable std::mutex mutex_;  // list_; never held over a wait
  std::vector<std::shared_ptr<VcpuRunner>> list_;
};

}  // namespace vivarium

// What belongs to one virtual machine at run time: its descriptor, its posted ring, its vCPU threads; and their end.
// Everything but finishClose() is the JavaScript thread's.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "core/counters.h"
#include "kvm/system.h"
#include "kvm/vm.h"
#include "thread/event_thread.h"
#include "thread/pit_steering.h"
#include "thread/posted_ring.h"
#include "thread/ready_queue.h"
#include "thread/signal_sources.h"
#include "thread/vcpu_group.h"

namespace vivarium {

// What all machines of an environment share.
struct Runtime {
  explicit Runtime(CountersPtr counters_)
      : counters(std::move(counters_)),
        ready(std::make_shared<ReadyQueue>()),
        spinNs(std::make_shared<std::atomic<uint64_t>>(0)),
        events(std::make_unique<EventThread>(counters)),
        signals(ready),
        signalWatcher(&events->loop()) {}

  CountersPtr counters;
  std::shared_ptr<ReadyQueue> ready;
  std::shared_ptr<std::atomic<uint64_t>> spinNs;
  std::unique_ptr<EventThread> events;
  SignalSources signals;
  FdWatcher* signalWatcher;  // of what is meant for JavaScript
};

class Machine {
 public:
  // `fd` is of KVM_CREATE_VM.
  Machine(std::shared_ptr<Runtime> runtime, Fd fd, size_t vcpuMmapBytes);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  const std::shared_ptr<Vm>& vm() const { return vm_; }
  const std::shared_ptr<PostedRing>& posted() const { return posted_; }
  const std::shared_ptr<VcpuGroup>& vcpus() const { return vcpus_; }
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Throws Failure kClosed.
  void checkOpen() const;

  std::shared_ptr<VcpuRunner> createVcpu(uint32_t id, const std::string& threadName);
  // The steering of the PIT, once.
  std::shared_ptr<PitSteering> openPit();
  // KVM_REGISTER_COALESCED_MMIO has succeeded.
  void zoneRegistered();
  // A vCPU was resumed.
  void runs();

  // Asks every thread to end and lets nothing new begin. Never waits.
  void beginClose();
  // Joins the threads, closes the descriptors, lets the memory go. Any thread, idempotent; the second caller waits.
  void finishClose();

 private:
  void tellOfPosted();

  std::shared_ptr<Runtime> runtime_;
  size_t vcpuMmapBytes_;
  std::shared_ptr<Vm> vm_;
  std::shared_ptr<PostedRing> posted_;
  std::shared_ptr<VcpuGroup> vcpus_;
  std::shared_ptr<PitSteering> pit_;
  EventLoop::Key postedTimer_ = 0;
  std::atomic<bool> closed_{false};
  std::mutex closeMutex_;
};

}  // namespace vivarium

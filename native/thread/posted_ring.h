// Writes that vCPUs do not wait for: posted port writes and KVM's coalesced zones, in one ring of a VM, read by
// JavaScript. A posted write alone is no reason to wake JavaScript: it is woken for 256 of them, for an exit, whose
// handler reads the ring first, or by a timer 2 ms after the first, up to 16 ms while they keep coming. Beside it the
// two tables by which a vCPU thread answers one-byte port accesses itself. The layout of the shared memory is PortFlag,
// PostedControl, PostedEntry and ReadQueue of lib/kvm/native.ts.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "core/counters.h"
#include "core/fd.h"
#include "core/mapping.h"
#include "thread/ready_queue.h"

namespace vivarium {

inline constexpr uint8_t kPortPublished = 1;
inline constexpr uint8_t kPortPosted = 2;
inline constexpr uint8_t kPortIgnored = 4;
inline constexpr uint8_t kPortQueued = 8;

struct PostedEntry {
  uint64_t address;
  uint64_t value;
  uint32_t sizeBytes;
  uint32_t space;  // 0 a port, 1 MMIO
};
static_assert(sizeof(PostedEntry) == 24);

class PostedRing {
 public:
  static constexpr size_t kPorts = 65536;
  static constexpr uint32_t kCapacity = 4096;
  static constexpr size_t kControlBytes = 128;

  PostedRing(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready);

  const std::shared_ptr<Source>& source() const { return source_; }
  const std::shared_ptr<Mapping>& memory() const { return memory_; }
  uint8_t* flags() const { return memory_->data(); }
  uint8_t* values() const { return memory_->data() + kPorts; }
  uint8_t* entries() const { return memory_->data() + 2 * kPorts; }
  static constexpr size_t kEntriesBytes = kCapacity * sizeof(PostedEntry);
  uint8_t* control() const { return entries() + kEntriesBytes; }
  static constexpr size_t kQueues = 4;
  static constexpr size_t kQueueBytes = 512;
  uint8_t* queues() const { return control() + kControlBytes; }

  // The next byte that waits for reads of this port; false when none does. Any vCPU thread.
  bool takeQueued(uint16_t port, uint8_t* value) const;

  // Where KVM's coalesced ring is: in the mapping of the VM's first vCPU. JavaScript thread.
  void attachCoalesced(std::shared_ptr<Mapping> runMapping, size_t offset);
  // A zone was registered: from now on every return of KVM_RUN drains. It stays so. JavaScript thread.
  void zonesInUse() { zones_.store(true, std::memory_order_release); }
  bool hasZones() const { return zones_.load(std::memory_order_acquire); }

  // vCPU threads. False when `stop` was set while the ring was full; the entry is not in the ring then.
  bool post(const PostedEntry& entry, const std::atomic<uint32_t>& requests, uint32_t stop);
  // vCPU threads: moves everything out of KVM's ring, waiting for room. False as above.
  bool drain(const std::atomic<uint32_t>& requests, uint32_t stop);
  // Any thread: moves what there is room for. The number of entries moved.
  uint32_t drainWithoutWaiting();
  // A timerfd that expires when writes have waited long enough; the event thread then calls ring().
  int timerFd() const { return timer_.get(); }
  // Any thread: JavaScript is to look at what was posted.
  void ring();
  // JavaScript has moved TAIL on, or a vCPU thread that waits must look at its requests.
  void wakeWaiters();

 private:
  std::atomic_ref<uint32_t> controlWord(size_t offset) const;
  bool putLocked(const PostedEntry& entry);
  bool waitForRoomLocked(std::unique_lock<std::mutex>& lock, const std::atomic<uint32_t>& requests, uint32_t stop);
  uint32_t moveCoalescedLocked(bool* left);
  void armTimer() const;

  std::shared_ptr<ReadyQueue> ready_;
  std::shared_ptr<Source> source_;
  std::shared_ptr<Mapping> memory_;
  std::shared_ptr<Mapping> runMapping_;
  uint8_t* coalesced_ = nullptr;
  std::atomic<bool> zones_{false};
  std::mutex mutex_;
  std::condition_variable room_;
  uint32_t head_ = 0;    // the ring's own; what JavaScript sees is a copy
  uint32_t toldAt_ = 0;  // up to here JavaScript was told, or has read by itself
  std::atomic<long> waitNs_;
  Fd timer_;
};

}  // namespace vivarium

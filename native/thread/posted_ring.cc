// Producers stand under one mutex (several vCPUs, and the epoll thread that drains); the consumer is JavaScript alone.
// The counters run freely and every index is taken modulo the capacity, so that nothing JavaScript writes into the
// shared words can lead outside of the ring.
#include "thread/posted_ring.h"

#include <linux/kvm.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr size_t kHeadOffset = 0;
constexpr size_t kTailOffset = 64;
constexpr size_t kWaitersOffset = 68;

// A queue of read values: JavaScript moves the head, vCPU threads the tail.
constexpr size_t kQueuePortOffset = 4;
constexpr size_t kQueueTailOffset = 64;
constexpr size_t kQueueDataOffset = 128;
constexpr uint32_t kQueueCapacity = 256;
static_assert(kQueueDataOffset + kQueueCapacity <= PostedRing::kQueueBytes);

// struct kvm_coalesced_mmio_ring: first, last, entries. Spelled out, since the header's flexible array has another
// offset in C++ than in C.
constexpr size_t kCoalescedEntriesOffset = 8;
constexpr uint32_t kCoalescedEntries = (4096 - kCoalescedEntriesOffset) / sizeof(kvm_coalesced_mmio);
static_assert(sizeof(kvm_coalesced_mmio) == 24);

// A bound for the case that JavaScript moved TAIL without the ordering that shows it WAITERS.
constexpr auto kLookAgain = std::chrono::milliseconds(10);

constexpr uint32_t kBatch = 256;
constexpr long kShortestWaitNs = 2'000'000;
constexpr long kLongestWaitNs = 16'000'000;
// As many writes in one wait are a stream, not an answer that somebody waits for.
constexpr uint32_t kStream = 8;

}  // namespace

PostedRing::PostedRing(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready)
    : ready_(std::move(ready)),
      source_(ready_->newSource()),
      memory_(Mapping::anonymous(counters, 2 * kPorts + kEntriesBytes + kControlBytes + kQueues * kQueueBytes)),
      waitNs_(kShortestWaitNs),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  if (!timer_.valid()) throwSyscall("timerfd_create", errno);
}

std::atomic_ref<uint32_t> PostedRing::controlWord(size_t offset) const {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(control() + offset));
}

void PostedRing::attachCoalesced(std::shared_ptr<Mapping> runMapping, size_t offset) {
  const std::lock_guard lock(mutex_);
  if (coalesced_ != nullptr || offset + 4096 > runMapping->size()) return;
  runMapping_ = std::move(runMapping);
  coalesced_ = runMapping_->data() + offset;
}

bool PostedRing::putLocked(const PostedEntry& entry) {
  if (head_ - controlWord(kTailOffset).load(std::memory_order_acquire) >= kCapacity) return false;
  std::memcpy(entries() + (head_ % kCapacity) * sizeof entry, &entry, sizeof entry);
  head_++;
  controlWord(kHeadOffset).store(head_, std::memory_order_release);
  return true;
}

bool PostedRing::waitForRoomLocked(std::unique_lock<std::mutex>& lock, const std::atomic<uint32_t>& requests,
                                   uint32_t stop) {
  const auto waiters = controlWord(kWaitersOffset);
  waiters.fetch_add(1, std::memory_order_seq_cst);
  bool stopped = false;
  while (head_ - controlWord(kTailOffset).load(std::memory_order_seq_cst) >= kCapacity) {
    if ((requests.load(std::memory_order_acquire) & stop) != 0) {
      stopped = true;
      break;
    }
    room_.wait_for(lock, kLookAgain);
  }
  waiters.fetch_sub(1, std::memory_order_seq_cst);
  return !stopped;
}

bool PostedRing::post(const PostedEntry& entry, const std::atomic<uint32_t>& requests, uint32_t stop) {
  std::unique_lock lock(mutex_);
  while (!putLocked(entry)) {
    ready_->put(source_);
    if (!waitForRoomLocked(lock, requests, stop)) return false;
  }
  const uint32_t read = controlWord(kTailOffset).load(std::memory_order_acquire);
  if (static_cast<int32_t>(read - toldAt_) > 0) toldAt_ = read;
  const uint32_t untold = head_ - toldAt_;
  if (untold >= kBatch) toldAt_ = head_;
  lock.unlock();
  if (untold >= kBatch) {
    ready_->put(source_);
  } else if (untold == 1) {
    armTimer();
  }
  return true;
}

void PostedRing::armTimer() const {
  itimerspec spec{};
  spec.it_value.tv_nsec = waitNs_.load(std::memory_order_relaxed);
  ::timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

void PostedRing::ring() {
  {
    const std::lock_guard lock(mutex_);
    const bool stream = static_cast<int32_t>(head_ - toldAt_) >= static_cast<int32_t>(kStream);
    const long waitNs = waitNs_.load(std::memory_order_relaxed);
    waitNs_.store(stream ? std::min(waitNs * 2, kLongestWaitNs) : kShortestWaitNs, std::memory_order_relaxed);
    toldAt_ = head_;
  }
  ready_->put(source_);
}

uint32_t PostedRing::moveCoalescedLocked(bool* left) {
  *left = false;
  if (coalesced_ == nullptr) return 0;
  const std::atomic_ref<uint32_t> first(*reinterpret_cast<uint32_t*>(coalesced_));
  const std::atomic_ref<uint32_t> last(*reinterpret_cast<uint32_t*>(coalesced_ + 4));
  uint32_t moved = 0;
  for (;;) {
    const uint32_t index = first.load(std::memory_order_relaxed);
    if (index == last.load(std::memory_order_acquire)) return moved;
    if (index >= kCoalescedEntries) return moved;  // KVM never writes such an index
    kvm_coalesced_mmio from;
    std::memcpy(&from, coalesced_ + kCoalescedEntriesOffset + index * sizeof from, sizeof from);
    PostedEntry entry{from.phys_addr, 0, from.len, from.pio != 0 ? 0u : 1u};
    std::memcpy(&entry.value, from.data, std::min<size_t>(from.len, sizeof from.data));
    if (!putLocked(entry)) {
      *left = true;
      return moved;
    }
    moved++;
    first.store((index + 1) % kCoalescedEntries, std::memory_order_release);
  }
}

bool PostedRing::drain(const std::atomic<uint32_t>& requests, uint32_t stop) {
  std::unique_lock lock(mutex_);
  bool any = false;
  for (;;) {
    bool left;
    any = moveCoalescedLocked(&left) > 0 || any;
    if (!left) break;
    ready_->put(source_);
    if (!waitForRoomLocked(lock, requests, stop)) return false;
  }
  lock.unlock();
  if (any) ready_->put(source_);
  return true;
}

uint32_t PostedRing::drainWithoutWaiting() {
  std::unique_lock lock(mutex_);
  bool left;
  const uint32_t moved = moveCoalescedLocked(&left);
  lock.unlock();
  if (moved > 0 || left) ready_->put(source_);
  return moved;
}

bool PostedRing::takeQueued(uint16_t port, uint8_t* value) const {
  for (size_t index = 0; index < kQueues; index++) {
    uint8_t* const queue = queues() + index * kQueueBytes;
    const auto word = [queue](size_t offset) {
      return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(queue + offset));
    };
    if (word(kQueuePortOffset).load(std::memory_order_acquire) != port) continue;
    uint32_t tail = word(kQueueTailOffset).load(std::memory_order_relaxed);
    do {
      // Signed: JavaScript may take bytes back while a thread takes one, and then the head is behind.
      if (static_cast<int32_t>(word(kHeadOffset).load(std::memory_order_acquire) - tail) <= 0) return false;
      *value =
          std::atomic_ref<uint8_t>(queue[kQueueDataOffset + tail % kQueueCapacity]).load(std::memory_order_relaxed);
    } while (!word(kQueueTailOffset).compare_exchange_weak(tail, tail + 1, std::memory_order_acq_rel));
    return true;
  }
  return false;
}

void PostedRing::wakeWaiters() {
  const std::lock_guard lock(mutex_);
  room_.notify_all();
}

}  // namespace vivarium

// An intrusive queue of many producers and one consumer (D. Vyukov): a put is one exchange and one store.
#include "thread/ready_queue.h"

#include "core/clock.h"

namespace vivarium {

ReadyQueue::ReadyQueue() : tail_(&sentinel_), head_(&sentinel_) {}

ReadyQueue::~ReadyQueue() {
  while (take() != nullptr) {
  }
}

void ReadyQueue::onDoorbell(std::function<void()> ring) {
  const std::lock_guard lock(doorbellMutex_);
  ring_ = std::move(ring);
}

std::shared_ptr<Source> ReadyQueue::newSource() {
  return std::make_shared<Source>(++lastId_);
}

void ReadyQueue::link(Source* source) {
  source->next_.store(nullptr, std::memory_order_relaxed);
  Source* previous = head_.exchange(source, std::memory_order_acq_rel);
  previous->next_.store(source, std::memory_order_release);
}

void ReadyQueue::put(const std::shared_ptr<Source>& source) {
  // An exchange also when it is queued already: it orders what the caller wrote before JavaScript's next look.
  if (source->queued_.exchange(true, std::memory_order_seq_cst)) return;
  source->self_ = source;
  link(source.get());
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (armed_.load(std::memory_order_relaxed) && armed_.exchange(false, std::memory_order_seq_cst)) {
    const std::lock_guard lock(doorbellMutex_);
    if (ring_) ring_();
  }
}

std::shared_ptr<Source> ReadyQueue::take() {
  Source* tail = tail_;
  Source* next = tail->next_.load(std::memory_order_acquire);
  if (tail == &sentinel_) {
    if (next == nullptr) return nullptr;
    tail_ = next;
    tail = next;
    next = next->next_.load(std::memory_order_acquire);
  }
  if (next == nullptr) {
    if (tail != head_.load(std::memory_order_acquire)) return nullptr;  // a put is half done
    link(&sentinel_);
    next = tail->next_.load(std::memory_order_acquire);
    if (next == nullptr) return nullptr;
  }
  tail_ = next;
  std::shared_ptr<Source> source = std::move(tail->self_);
  source->queued_.exchange(false, std::memory_order_seq_cst);
  return source;
}

uint32_t ReadyQueue::takeId() {
  while (const std::shared_ptr<Source> source = take()) {
    if (!source->retired_.load(std::memory_order_acquire)) return source->id_;
  }
  return 0;
}

uint32_t ReadyQueue::next(uint64_t spinNs) {
  if (const uint32_t id = takeId()) return id;
  if (spinNs > 0) {
    const uint64_t deadlineNs = monotonicNs() + spinNs;
    do {
      for (int look = 0; look < 16; look++) {
        if (const uint32_t id = takeId()) return id;
        spinPause();
      }
      if (look_) look_();
    } while (monotonicNs() < deadlineNs);
  }
  armed_.store(true, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (const uint32_t id = takeId()) {
    armed_.store(false, std::memory_order_seq_cst);
    return id;
  }
  return 0;
}

}  // namespace vivarium

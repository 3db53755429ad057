// The queue of sources that need JavaScript's attention: many threads put in, the environment's JavaScript thread takes
// out. Each source stands in it at most once, so that it can never grow without bound and putting in allocates nothing.
//
// The doorbell: while `armed_`, JavaScript is asleep, and whoever puts a source in rings once and disarms. JavaScript
// then calls next() until it gives 0; before it gives 0 it arms the doorbell and looks once more, so no wake-up is
// lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

namespace vivarium {

class ReadyQueue;

// Something that can need attention: a vCPU, a VM's posted ring, a watched eventfd.
class Source {
 public:
  explicit Source(uint32_t id) : id_(id) {}
  uint32_t id() const { return id_; }
  // A retired source that still stands in the queue is passed over. For good.
  void retire() { retired_.store(true, std::memory_order_release); }

 private:
  friend class ReadyQueue;
  const uint32_t id_;
  std::atomic<bool> queued_{false};
  std::atomic<bool> retired_{false};
  std::atomic<Source*> next_{nullptr};
  std::shared_ptr<Source> self_;  // keeps a queued source alive
};

class ReadyQueue {
 public:
  ReadyQueue();
  ~ReadyQueue();
  ReadyQueue(const ReadyQueue&) = delete;
  ReadyQueue& operator=(const ReadyQueue&) = delete;

  // What the doorbell does; an empty function silences it for good (teardown). JavaScript thread.
  void onDoorbell(std::function<void()> ring);
  // What next() does now and then while it spins: looks for sources that nobody else puts in. JavaScript thread.
  void onSpin(std::function<void()> look) { look_ = std::move(look); }
  // JavaScript is about to call next() by itself: nobody needs to ring. JavaScript thread.
  void expect() { armed_.store(false, std::memory_order_seq_cst); }
  // JavaScript thread: a source that is in no queue yet, with an id of its own (never 0).
  std::shared_ptr<Source> newSource();
  // Any thread. Everything written before is visible to the thread that takes the source out.
  void put(const std::shared_ptr<Source>& source);
  // JavaScript thread: the id of the next source, after at most `spinNs` of looking, or 0 with the doorbell armed.
  uint32_t next(uint64_t spinNs);

 private:
  // Takes one out, or nothing: also when a thread is in the middle of putting one in (it will look at `armed_` after).
  std::shared_ptr<Source> take();
  uint32_t takeId();
  void link(Source* source);

  uint32_t lastId_ = 0;
  std::mutex doorbellMutex_;
  std::function<void()> ring_;
  std::function<void()> look_;
  Source sentinel_{0};  // stands in the queue when nothing else does
  Source* tail_;        // JavaScript thread only
  alignas(64) std::atomic<Source*> head_;
  alignas(64) std::atomic<bool> armed_{true};
};

}  // namespace vivarium

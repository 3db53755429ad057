// What the event thread does for an environment: takes the counts of watched eventfds for JavaScript, and empties the
// coalesced rings of running machines at intervals, so that they do not stay unread while a guest is halted.
// Others put handlers of their own on its loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/event_fd.h"
#include "thread/event_loop.h"
#include "thread/posted_ring.h"
#include "thread/ready_queue.h"

namespace vivarium {

class EventThread {
 public:
  EventThread(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready);
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  EventLoop& loop() { return loop_; }

  // All of these: JavaScript thread.
  uint32_t watch(std::shared_ptr<EventFd> eventFd);
  // The sum of the counts since the last call; 0 for an id that is not watched.
  uint64_t takeCount(uint32_t sourceId);
  void unwatch(uint32_t sourceId);
  // `running` says whether any vCPU of the machine may run; asked on the event thread.
  void addRing(const std::shared_ptr<PostedRing>& ring, std::function<bool()> running);
  // A machine with zones goes on: look again at short intervals.
  void machineRuns();
  // Ends and joins the thread. Idempotent; nothing can be watched afterwards.
  void stop();

 private:
  struct Watch {
    std::shared_ptr<EventFd> eventFd;
    std::shared_ptr<Source> source;
    std::atomic<uint64_t> count{0};
    EventLoop::Key key = 0;
  };
  struct Ring {
    std::weak_ptr<PostedRing> ring;
    std::function<bool()> running;
  };

  void drainRings();

  std::shared_ptr<ReadyQueue> ready_;
  std::map<uint32_t, std::shared_ptr<Watch>> watches_;  // JavaScript thread
  std::mutex ringsMutex_;                               // rings_
  std::vector<Ring> rings_;
  std::atomic<bool> lookAnew_{false};
  EventLoop::Key ringTimer_ = 0;
  uint64_t intervalNs_ = 0;  // event thread; 0 while no ring is looked at
  EventLoop loop_;           // last: its handlers use what stands above
};

}  // namespace vivarium

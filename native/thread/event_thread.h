// What the event thread does for an environment: empties the coalesced rings of running machines at intervals, so that
// they do not stay unread while a guest is halted. Others put handlers of their own on its loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "thread/event_loop.h"
#include "thread/posted_ring.h"

namespace vivarium {

class EventThread {
 public:
  explicit EventThread(const CountersPtr& counters);
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  EventLoop& loop() { return loop_; }

  // All of these: JavaScript thread.
  // `running` says whether any vCPU of the machine may run; asked on the event thread.
  void addRing(const std::shared_ptr<PostedRing>& ring, std::function<bool()> running);
  // A machine with zones goes on: look again at short intervals.
  void machineRuns();
  // Ends and joins the thread. Idempotent; nothing is called afterwards.
  void stop();

 private:
  struct Ring {
    std::weak_ptr<PostedRing> ring;
    std::function<bool()> running;
  };

  void drainRings();

  std::mutex ringsMutex_;  // rings_
  std::vector<Ring> rings_;
  std::atomic<bool> lookAnew_{false};
  EventLoop::Key ringTimer_ = 0;
  uint64_t intervalNs_ = 0;  // event thread; 0 while no ring is looked at
  EventLoop loop_;           // last: its handlers use what stands above
};

}  // namespace vivarium

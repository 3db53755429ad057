// One thread an environment: takes the counts of watched eventfds for JavaScript, and empties the coalesced rings of
// running machines at intervals, so that they do not stay unread while a guest is halted.
// It starts with the first watch or zone, and never waits for JavaScript.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/event_fd.h"
#include "core/fd.h"
#include "thread/posted_ring.h"
#include "thread/ready_queue.h"

namespace vivarium {

class EventThread {
 public:
  EventThread(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready);
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  // All of these: JavaScript thread.
  uint32_t watch(std::shared_ptr<EventFd> eventFd);
  // The sum of the counts since the last call; 0 for an id that is not watched.
  uint64_t takeCount(uint32_t sourceId);
  void unwatch(uint32_t sourceId);
  // `running` says whether any vCPU of the machine may run; asked on the event thread.
  void addRing(const std::shared_ptr<PostedRing>& ring, std::function<bool()> running);
  // Calls ring() whenever the ring's timer expires. Nothing has to be taken back: the descriptor leaves with the ring.
  void addTimer(const std::shared_ptr<PostedRing>& ring);
  // A machine with zones goes on: look again at short intervals.
  void machineRuns();
  // Ends and joins the thread. Idempotent; nothing can be watched afterwards.
  void stop();

 private:
  struct Watch {
    std::shared_ptr<EventFd> eventFd;
    std::shared_ptr<Source> source;
    std::atomic<uint64_t> count{0};
  };
  struct Ring {
    std::weak_ptr<PostedRing> ring;
    std::function<bool()> running;
  };

  void start();
  void loop();
  void takeWatched(uint32_t sourceId);
  void timerExpired(uint64_t key);
  void drainRings();
  void setTimer(uint64_t intervalNs);

  CountersPtr counters_;
  std::shared_ptr<ReadyQueue> ready_;
  bool started_ = false;
  bool stopped_ = false;
  pthread_t thread_{};
  Fd epoll_;
  Fd timer_;
  Fd wake_;
  std::atomic<bool> ending_{false};
  std::mutex mutex_;  // watches_, rings_ and timers_
  std::map<uint32_t, std::shared_ptr<Watch>> watches_;
  std::vector<Ring> rings_;
  std::map<uint64_t, std::weak_ptr<PostedRing>> timers_;
  uint64_t lastTimerKey_ = uint64_t{1} << 33;  // above every source id and the keys of our own
  uint64_t intervalNs_ = 0;                    // event thread; 0 while the timer is off
};

}  // namespace vivarium

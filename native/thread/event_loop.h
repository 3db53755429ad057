// The event thread: calls handlers when descriptors become readable and when times have come. One an environment; it
// starts when it is first needed. Handlers never wait for JavaScript, and know for themselves whether they still
// matter.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "core/counters.h"
#include "core/fd.h"

namespace vivarium {

class EventLoop {
 public:
  using Handler = std::function<void()>;
  using Key = uint64_t;  // never 0, never used again

  explicit EventLoop(const CountersPtr& counters);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // JavaScript thread. Throws Failure kClosed after stop().
  void start();
  // JavaScript thread: ends and joins the thread, lets all handlers go. Idempotent.
  void stop();

  // All of these: any thread, between start() and stop(); afterwards they do nothing.

  // `handler` is called whenever the descriptor is readable, and has to read it. The descriptor outlives remove().
  Key addFd(int fd, Handler handler);
  // The same for one call; rearm() allows the next.
  Key addFdOnce(int fd, Handler handler);
  void rearm(Key key);
  // A timer, which is off.
  Key addTimer(Handler handler);
  // Calls the timer's handler once, at a moment of CLOCK_MONOTONIC; at once when that has passed; 0: never.
  void setTimer(Key timer, uint64_t atNs);
  static constexpr uint64_t kAtOnce = 1;
  // No call begins afterwards, but one that has begun may still be under way unless this is the event thread.
  void remove(Key key);

 private:
  struct Entry {
    std::shared_ptr<const Handler> handler;
    int fd = -1;        // of a descriptor
    uint64_t atNs = 0;  // of a timer; 0 while it is off
  };

  Key add(int fd, uint32_t events, Handler handler);
  void loop();
  void call(Key key);
  void callTimers();
  void armLocked();

  CountersPtr counters_;
  bool started_ = false;
  bool stopped_ = false;
  pthread_t thread_{};
  std::atomic<bool> ending_{false};
  std::mutex mutex_;  // everything below; never held over a handler
  Fd epoll_;
  Fd timer_;
  Fd wake_;
  Key lastKey_ = 0;
  std::map<Key, Entry> entries_;
  uint64_t armedNs_ = 0;  // what the timerfd stands at
};

}  // namespace vivarium

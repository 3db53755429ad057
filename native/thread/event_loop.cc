// epoll(7) over the descriptors, one timerfd for all timers, and an eventfd by which the thread is told to end.
#include "thread/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "core/clock.h"
#include "core/failure.h"
#include "thread/kick.h"
#include "thread/thread_fence.h"

namespace vivarium {
namespace {

// In the epoll set beside the keys of descriptors, which count up from 1.
constexpr uint64_t kWakeKey = UINT64_MAX;
constexpr uint64_t kTimerKey = UINT64_MAX - 1;

constexpr uint32_t kOnce = EPOLLIN | EPOLLONESHOT;

void addToEpoll(int epoll, int fd, uint64_t key, const char* detail, uint32_t events = EPOLLIN) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) throwSyscall("epoll_ctl", errno, detail);
}

}  // namespace

EventLoop::EventLoop(const CountersPtr& counters) : counters_(counters) {}

EventLoop::~EventLoop() {
  stop();
}

void EventLoop::start() {
  if (stopped_) throwClosed("runtime");
  if (started_) return;
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) throwSyscall("epoll_create1", errno);
  Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) throwSyscall("timerfd_create", errno);
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) throwSyscall("eventfd", errno);
  addToEpoll(epoll.get(), wake.get(), kWakeKey, "wake");
  addToEpoll(epoll.get(), timer.get(), kTimerKey, "timer");
  {
    const std::lock_guard lock(mutex_);
    epoll_ = std::move(epoll);
    timer_ = std::move(timer);
    wake_ = std::move(wake);
  }

  const BlockSignals blocked;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  const int error = ::pthread_create(
      &thread_, &attributes,
      [](void* self) -> void* {
        auto* thread = static_cast<EventLoop*>(self);
        const Counted counted(thread->counters_, &Counters::threads);
        thread->loop();
        return nullptr;
      },
      this);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) throwSyscall("pthread_create", error, "vivarium-events");
  started_ = true;
}

void EventLoop::stop() {
  stopped_ = true;
  if (started_) {
    started_ = false;
    ending_.store(true, std::memory_order_seq_cst);
    const uint64_t one = 1;
    while (::write(wake_.get(), &one, sizeof one) < 0 && errno == EINTR) {
    }
    ::pthread_join(thread_, nullptr);
  }
  std::map<Key, Entry> released;  // after the lock: what handlers hold may end things
  const std::lock_guard lock(mutex_);
  epoll_.reset();
  timer_.reset();
  wake_.reset();
  released.swap(entries_);
}

EventLoop::Key EventLoop::addFd(int fd, Handler handler) {
  return add(fd, EPOLLIN, std::move(handler));
}

EventLoop::Key EventLoop::addFdOnce(int fd, Handler handler) {
  return add(fd, kOnce, std::move(handler));
}

void EventLoop::rearm(Key key) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  epoll_event event{};
  event.events = kOnce;
  event.data.u64 = key;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second.fd, &event);
}

EventLoop::Key EventLoop::addSignal(int fd, Handler handler) {
  start();
  return add(fd, EPOLLIN | EPOLLET, std::move(handler));
}

EventLoop::Key EventLoop::add(int fd, uint32_t events, Handler handler) {
  const std::lock_guard lock(mutex_);
  if (!epoll_.valid()) return 0;
  const Key key = ++lastKey_;
  addToEpoll(epoll_.get(), fd, key, "event thread", events);
  entries_.emplace(key, Entry{std::make_shared<const Handler>(std::move(handler)), fd, 0});
  return key;
}

EventLoop::Key EventLoop::addTimer(Handler handler) {
  const std::lock_guard lock(mutex_);
  if (!epoll_.valid()) return 0;
  const Key key = ++lastKey_;
  entries_.emplace(key, Entry{std::make_shared<const Handler>(std::move(handler)), -1, 0});
  return key;
}

void EventLoop::setTimer(Key timer, uint64_t atNs) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(timer);
  if (found == entries_.end()) return;
  found->second.atNs = atNs;
  armLocked();
}

void EventLoop::remove(Key key) {
  Entry released;  // after the lock, as in stop()
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  if (found->second.fd >= 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  released = std::move(found->second);
  entries_.erase(found);
}

void EventLoop::armLocked() {
  uint64_t firstNs = 0;
  for (const auto& [key, entry] : entries_) {
    if (entry.atNs != 0 && (firstNs == 0 || entry.atNs < firstNs)) firstNs = entry.atNs;
  }
  if (firstNs == armedNs_) return;
  armedNs_ = firstNs;
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(firstNs / 1'000'000'000u);
  spec.it_value.tv_nsec = static_cast<long>(firstNs % 1'000'000'000u);
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void EventLoop::call(Key key) {
  std::shared_ptr<const Handler> handler;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return;  // removed in the meantime
    handler = found->second.handler;
  }
  (*handler)();
}

void EventLoop::callTimers() {
  std::vector<Key> due;
  {
    const std::lock_guard lock(mutex_);
    uint64_t ignored;
    if (::read(timer_.get(), &ignored, sizeof ignored) != sizeof ignored) return;  // set anew in the meantime
    armedNs_ = 0;
    const uint64_t nowNs = monotonicNs();
    for (auto& [key, entry] : entries_) {
      if (entry.atNs == 0 || entry.atNs > nowNs) continue;
      entry.atNs = 0;
      due.push_back(key);
    }
    armLocked();
  }
  for (const Key key : due) call(key);
}

void EventLoop::loop() {
  ::pthread_setname_np(::pthread_self(), "vivarium-events");
  fenceThread(ThreadDuty::kEvents);
  while (!ending_.load(std::memory_order_seq_cst)) {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll_.get(), events, 32, -1);
    for (int index = 0; index < count; index++) {
      const uint64_t key = events[index].data.u64;
      if (key == kTimerKey) {
        callTimers();
      } else if (key != kWakeKey) {
        call(key);
      }
    }
  }
}

}  // namespace vivarium

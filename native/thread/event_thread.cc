// epoll(7) over the watched eventfds, an eventfd of our own for changes, and a timerfd for the coalesced rings.
#include "thread/event_thread.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/failure.h"
#include "thread/kick.h"

namespace vivarium {
namespace {

// Keys of the epoll set that are no source ids.
constexpr uint64_t kWakeKey = uint64_t{1} << 32;
constexpr uint64_t kTimerKey = kWakeKey + 1;

// While entries arrive the rings are read every 5 ms; without traffic the interval doubles up to 40 ms.
constexpr uint64_t kShortestNs = 5'000'000;
constexpr uint64_t kLongestNs = 40'000'000;

void addToEpoll(int epoll, int fd, uint64_t key, const char* detail) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) throwSyscall("epoll_ctl", errno, detail);
}

}  // namespace

EventThread::EventThread(const CountersPtr& counters, std::shared_ptr<ReadyQueue> ready)
    : counters_(counters), ready_(std::move(ready)) {}

EventThread::~EventThread() {
  stop();
}

void EventThread::start() {
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
  epoll_ = std::move(epoll);
  timer_ = std::move(timer);
  wake_ = std::move(wake);

  const BlockSignals blocked;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  const int error = ::pthread_create(
      &thread_, &attributes,
      [](void* self) -> void* {
        auto* thread = static_cast<EventThread*>(self);
        const Counted counted(thread->counters_, &Counters::threads);
        thread->loop();
        return nullptr;
      },
      this);
  ::pthread_attr_destroy(&attributes);
  if (error != 0) throwSyscall("pthread_create", error, "vivarium-events");
  started_ = true;
}

void EventThread::stop() {
  stopped_ = true;
  if (!started_) return;
  started_ = false;
  ending_.store(true, std::memory_order_seq_cst);
  const uint64_t one = 1;
  while (::write(wake_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
  ::pthread_join(thread_, nullptr);
  epoll_.reset();
  timer_.reset();
  wake_.reset();
  const std::lock_guard lock(mutex_);
  for (const auto& [id, watch] : watches_) watch->source->retire();
  watches_.clear();
  rings_.clear();
  timers_.clear();
}

uint32_t EventThread::watch(std::shared_ptr<EventFd> eventFd) {
  start();
  auto watch = std::make_shared<Watch>();
  watch->eventFd = std::move(eventFd);
  watch->source = ready_->newSource();
  const uint32_t id = watch->source->id();
  const std::lock_guard lock(mutex_);
  watches_.emplace(id, watch);
  try {
    addToEpoll(epoll_.get(), watch->eventFd->fd(), id, "eventfd");
  } catch (...) {
    watches_.erase(id);
    throw;
  }
  return id;
}

uint64_t EventThread::takeCount(uint32_t sourceId) {
  const std::lock_guard lock(mutex_);
  const auto found = watches_.find(sourceId);
  return found == watches_.end() ? 0 : found->second->count.exchange(0, std::memory_order_acq_rel);
}

void EventThread::unwatch(uint32_t sourceId) {
  const std::lock_guard lock(mutex_);
  const auto found = watches_.find(sourceId);
  if (found == watches_.end()) return;
  found->second->source->retire();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->eventFd->fd(), nullptr);
  watches_.erase(found);
}

void EventThread::addRing(const std::shared_ptr<PostedRing>& ring, std::function<bool()> running) {
  start();
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(rings_, [](const Ring& row) { return row.ring.expired(); });
    for (const Ring& row : rings_) {
      if (row.ring.lock() == ring) return;
    }
    rings_.push_back(Ring{ring, std::move(running)});
  }
  machineRuns();
}

void EventThread::addTimer(const std::shared_ptr<PostedRing>& ring) {
  start();
  const std::lock_guard lock(mutex_);
  std::erase_if(timers_, [](const auto& row) { return row.second.expired(); });
  const uint64_t key = ++lastTimerKey_;
  timers_.emplace(key, ring);
  try {
    addToEpoll(epoll_.get(), ring->timerFd(), key, "timerfd");
  } catch (...) {
    timers_.erase(key);
    throw;
  }
}

void EventThread::timerExpired(uint64_t key) {
  std::shared_ptr<PostedRing> ring;
  {
    const std::lock_guard lock(mutex_);
    const auto found = timers_.find(key);
    if (found != timers_.end()) ring = found->second.lock();
  }
  if (ring == nullptr) return;
  uint64_t ignored;
  if (::read(ring->timerFd(), &ignored, sizeof ignored) == sizeof ignored) ring->ring();
}

void EventThread::machineRuns() {
  if (!started_) return;
  const uint64_t one = 1;
  while (::write(wake_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void EventThread::setTimer(uint64_t intervalNs) {
  if (intervalNs == intervalNs_) return;
  intervalNs_ = intervalNs;
  itimerspec spec{};
  spec.it_value.tv_nsec = static_cast<long>(intervalNs);
  spec.it_interval.tv_nsec = static_cast<long>(intervalNs);
  ::timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

void EventThread::takeWatched(uint32_t sourceId) {
  std::shared_ptr<Watch> watch;
  {
    const std::lock_guard lock(mutex_);
    const auto found = watches_.find(sourceId);
    if (found == watches_.end()) return;  // unwatched in the meantime
    watch = found->second;
  }
  uint64_t count = 0;
  if (::read(watch->eventFd->fd(), &count, sizeof count) != sizeof count) return;
  watch->count.fetch_add(count, std::memory_order_acq_rel);
  ready_->put(watch->source);
}

void EventThread::drainRings() {
  std::vector<std::shared_ptr<PostedRing>> running;
  {
    const std::lock_guard lock(mutex_);
    for (const Ring& row : rings_) {
      if (auto ring = row.ring.lock(); ring != nullptr && row.running()) running.push_back(std::move(ring));
    }
  }
  if (running.empty()) {
    setTimer(0);
    return;
  }
  uint32_t moved = 0;
  for (const auto& ring : running) moved += ring->drainWithoutWaiting();
  setTimer(moved > 0 || intervalNs_ == 0 ? kShortestNs : std::min(kLongestNs, intervalNs_ * 2));
}

void EventThread::loop() {
  ::pthread_setname_np(::pthread_self(), "vivarium-events");
  while (!ending_.load(std::memory_order_seq_cst)) {
    epoll_event events[32];
    const int count = ::epoll_wait(epoll_.get(), events, 32, -1);
    for (int index = 0; index < count; index++) {
      const uint64_t key = events[index].data.u64;
      uint64_t ignored;
      if (key == kWakeKey) {
        if (::read(wake_.get(), &ignored, sizeof ignored) > 0) setTimer(0);
        drainRings();
      } else if (key == kTimerKey) {
        if (::read(timer_.get(), &ignored, sizeof ignored) > 0) drainRings();
      } else if (key > kTimerKey) {
        timerExpired(key);
      } else {
        takeWatched(static_cast<uint32_t>(key));
      }
    }
  }
}

}  // namespace vivarium

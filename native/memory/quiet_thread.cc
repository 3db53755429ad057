// See quiet_thread.h.
#include "memory/quiet_thread.h"

#include <time.h>

#include <cerrno>
#include <memory>

#include "core/failure.h"
#include "thread/kick.h"

namespace vivarium {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

struct Start {
  CountersPtr counters;
  const char* name;
  ThreadDuty duty;
  std::function<void()> body;
};

void* run(void* argument) {
  const std::unique_ptr<Start> start(static_cast<Start*>(argument));
  const Counted counted(start->counters, &Counters::threads);
  ::pthread_setname_np(::pthread_self(), start->name);
  fenceThread(start->duty);
  start->body();
  return nullptr;
}

}  // namespace

pthread_t startQuietThread(const CountersPtr& counters, const char* name, ThreadDuty duty, std::function<void()> body) {
  auto start = std::make_unique<Start>(Start{counters, name, duty, std::move(body)});
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t thread{};
  int error;
  {
    const BlockSignals blocked;
    error = ::pthread_create(&thread, &attributes, run, start.get());
  }
  ::pthread_attr_destroy(&attributes);
  if (error != 0) throwSyscall("pthread_create", error, name);
  start.release();
  return thread;
}

bool joinOrLeave(pthread_t thread, uint64_t withinNs) {
  timespec deadline;
  ::clock_gettime(CLOCK_MONOTONIC, &deadline);
  const uint64_t ns = static_cast<uint64_t>(deadline.tv_nsec) + withinNs;
  deadline.tv_sec += static_cast<time_t>(ns / 1'000'000'000u);
  deadline.tv_nsec = static_cast<long>(ns % 1'000'000'000u);
  if (::pthread_clockjoin_np(thread, nullptr, CLOCK_MONOTONIC, &deadline) == 0) return true;
  ::pthread_detach(thread);
  return false;
}

}  // namespace vivarium

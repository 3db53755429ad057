// A thread with all signals blocked, a name and a small stack, and its end: joined in bounded time, or left to itself
// when it is stuck in a system call that nothing interrupts.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <functional>

#include "core/counters.h"
#include "thread/thread_fence.h"

namespace vivarium {

// `body` holds alive what it uses. Throws Failure kSyscall.
pthread_t startQuietThread(const CountersPtr& counters, const char* name, ThreadDuty duty, std::function<void()> body);
// False when it was left to itself.
bool joinOrLeave(pthread_t thread, uint64_t withinNs);

}  // namespace vivarium

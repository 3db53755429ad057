// What each of our threads may ask the kernel for: a filter of system calls (seccomp(2)) that the thread puts on itself
// when it starts, by what it is there for (docs/threads.md). The list is of what is allowed.
#pragma once

namespace vivarium {

enum class ThreadDuty {
  kVcpu,
  kEvents,
  kPager,
  kFill,
  kIo,
  kGroups,
};

// By the thread itself, first of all. Where the kernel has no filters, nothing happens.
//
// What no thread of ours has to do with ends the process: it can't be a mistake. Anything else that is not on the list
// fails with ENOSYS, as on a kernel that does not have it: the C library may come to use a new call, and knows what to
// do without it.
void fenceThread(ThreadDuty duty);

}  // namespace vivarium

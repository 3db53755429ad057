// A filter of system calls (seccomp(2)) as classic BPF, put together rule by rule: the first rule that fits answers,
// and what none fits gets the default. x86-64 alone; calls by way of i386 or x32 end the process.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace vivarium {

class SyscallFilter {
 public:
  enum class Answer { kAllow, kEperm, kEnosys, kKillProcess };

  SyscallFilter();

  SyscallFilter& on(std::initializer_list<int> calls, Answer answer);
  // Fits where (the argument's low 32 bits & mask) equals the value, or does not.
  SyscallFilter& onEqual(int call, int argument, uint32_t mask, uint32_t value, Answer answer);
  SyscallFilter& onOther(int call, int argument, uint32_t mask, uint32_t value, Answer answer);
  // The filter's end. Called once.
  SyscallFilter& otherwise(Answer answer);

  // For the thread that calls, or, for all threads of the process. The caller has set no_new_privs. 0, or the errno;
  // ENOSYS where the kernel has no filters.
  int install(bool allThreads) const;

 private:
  void compare(int call, int argument, uint32_t mask, uint32_t value, bool equal, Answer answer);

  std::vector<sock_filter> program_;
};

}  // namespace vivarium

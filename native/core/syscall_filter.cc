// See syscall_filter.h.
#include "core/syscall_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace vivarium {
namespace {

constexpr uint32_t kX32Bit = 0x40000000;
constexpr uint32_t kNumberAt = offsetof(seccomp_data, nr);

uint32_t valueOf(SyscallFilter::Answer answer) {
  switch (answer) {
    case SyscallFilter::Answer::kAllow: return SECCOMP_RET_ALLOW;
    case SyscallFilter::Answer::kEperm: return SECCOMP_RET_ERRNO | EPERM;
    case SyscallFilter::Answer::kEnosys: return SECCOMP_RET_ERRNO | ENOSYS;
    case SyscallFilter::Answer::kKillProcess: return SECCOMP_RET_KILL_PROCESS;
  }
  return SECCOMP_RET_KILL_PROCESS;
}

sock_filter load(uint32_t at) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at);
}

sock_filter answerWith(SyscallFilter::Answer answer) {
  return BPF_STMT(BPF_RET | BPF_K, valueOf(answer));
}

}  // namespace

SyscallFilter::SyscallFilter() {
  program_ = {
      load(offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      answerWith(Answer::kKillProcess),
      load(kNumberAt),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1),
      answerWith(Answer::kKillProcess),
  };
}

SyscallFilter& SyscallFilter::on(std::initializer_list<int> calls, Answer answer) {
  for (const int call : calls) {
    program_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    program_.push_back(answerWith(answer));
  }
  return *this;
}

void SyscallFilter::compare(int call, int argument, uint32_t mask, uint32_t value, bool equal, Answer answer) {
  const auto at =
      static_cast<uint32_t>(offsetof(seccomp_data, args) + sizeof(uint64_t) * static_cast<size_t>(argument));
  const uint8_t yes = equal ? 0 : 1;
  const uint8_t no = equal ? 1 : 0;
  program_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 5));
  program_.push_back(load(at));
  program_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
  program_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no));
  program_.push_back(answerWith(answer));
  program_.push_back(load(kNumberAt));
}

SyscallFilter& SyscallFilter::onEqual(int call, int argument, uint32_t mask, uint32_t value, Answer answer) {
  compare(call, argument, mask, value, true, answer);
  return *this;
}

SyscallFilter& SyscallFilter::onOther(int call, int argument, uint32_t mask, uint32_t value, Answer answer) {
  compare(call, argument, mask, value, false, answer);
  return *this;
}

SyscallFilter& SyscallFilter::otherwise(Answer answer) {
  program_.push_back(answerWith(answer));
  return *this;
}

int SyscallFilter::install(bool allThreads) const {
  sock_fprog program{static_cast<unsigned short>(program_.size()), const_cast<sock_filter*>(program_.data())};
  // Before Linux 5.16 a filter slows speculative stores of its threads by default. No guest's code runs under ours.
  unsigned long flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW | (allThreads ? SECCOMP_FILTER_FLAG_TSYNC : 0);
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (result == 0) return 0;
  // TSYNC gives the number of a thread that has a filter of its own.
  return result > 0 ? EBUSY : errno;
}

}  // namespace vivarium

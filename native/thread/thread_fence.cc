// See thread_fence.h. The calls that come most often stand first: before Linux 5.11 a filter is gone through each time.
#include "thread/thread_fence.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/syscall_filter.h"

namespace vivarium {
namespace {

using Answer = SyscallFilter::Answer;

// From a snapshot's files, and into the memory that clones share, which is sealed when it is whole.
void allowGroups(SyscallFilter& filter) {
  filter.on({SYS_preadv, SYS_pread64, SYS_pwrite64, SYS_mincore}, Answer::kAllow)
      .onEqual(SYS_fcntl, 1, UINT32_MAX, F_ADD_SEALS, Answer::kAllow);
}

void allowDuty(SyscallFilter& filter, ThreadDuty duty) {
  switch (duty) {
    case ThreadDuty::kVcpu: filter.on({SYS_ioctl, SYS_futex}, Answer::kAllow); break;
    case ThreadDuty::kEvents:
      filter.on({SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_read, SYS_ioctl, SYS_recvfrom}, Answer::kAllow);
      break;
    case ThreadDuty::kPager:
      filter.on({SYS_read, SYS_ioctl, SYS_ppoll, SYS_poll}, Answer::kAllow);
      allowGroups(filter);
      break;
    case ThreadDuty::kFill:
      filter.on({SYS_ioctl}, Answer::kAllow);
      allowGroups(filter);
      break;
    case ThreadDuty::kIo:
      filter.on(
          {SYS_preadv, SYS_pwritev, SYS_fdatasync, SYS_fallocate, SYS_readv, SYS_writev, SYS_preadv2, SYS_pwritev2},
          Answer::kAllow);
      break;
    case ThreadDuty::kGroups:
      filter.on({SYS_pwritev, SYS_preadv, SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_sync_file_range,
                 SYS_pwrite64, SYS_pread64},
                Answer::kAllow);
      break;
  }
}

// Other threads are woken by descriptors and the kick.
void allowWaking(SyscallFilter& filter) {
  filter.on({SYS_write, SYS_timerfd_settime, SYS_epoll_ctl, SYS_tgkill}, Answer::kAllow);
  // Libraries that are loaded before ours ask what a descriptor is, as that of our tests' disk faults.
  filter.on({SYS_readlink, SYS_fstat}, Answer::kAllow);
}

// Locks, memory, time, the thread's own end, and abort(3).
void allowLibrary(SyscallFilter& filter) {
  filter.on({SYS_futex,
             SYS_madvise,
             SYS_mmap,
             SYS_munmap,
             SYS_mprotect,
             SYS_mremap,
             SYS_brk,
             SYS_close,
             SYS_clock_gettime,
             SYS_clock_nanosleep,
             SYS_nanosleep,
             SYS_gettimeofday,
             SYS_getcpu,
             SYS_sched_yield,
             SYS_sched_getaffinity,
             SYS_rt_sigreturn,
             SYS_rt_sigprocmask,
             SYS_rt_sigaction,
             SYS_sigaltstack,
             SYS_restart_syscall,
             SYS_gettid,
             SYS_getpid,
             SYS_prctl,
             SYS_getrandom,
             SYS_set_robust_list,
             SYS_rseq,
             SYS_membarrier,
             SYS_exit,
             SYS_exit_group},
            Answer::kAllow);
}

void killForHostile(SyscallFilter& filter) {
  filter.on({SYS_execve,
             SYS_execveat,
             SYS_fork,
             SYS_vfork,
             SYS_clone,
             SYS_ptrace,
             SYS_process_vm_readv,
             SYS_process_vm_writev,
             SYS_pidfd_getfd,
             SYS_socket,
             SYS_connect,
             SYS_bind,
             SYS_listen,
             SYS_accept4,
             SYS_sendmsg,
             SYS_unshare,
             SYS_setns,
             SYS_mount,
             SYS_pivot_root,
             SYS_chroot,
             SYS_bpf,
             SYS_init_module,
             SYS_finit_module,
             SYS_kexec_load,
             SYS_open_by_handle_at,
             SYS_io_uring_setup,
             SYS_unlink,
             SYS_unlinkat,
             SYS_rename,
             SYS_renameat,
             SYS_renameat2,
             SYS_setuid,
             SYS_setresuid,
             SYS_capset},
            Answer::kKillProcess);
}

}  // namespace

void fenceThread(ThreadDuty duty) {
  // Without privileges a filter wants this; it is the thread's own, and threads of ours start no programs.
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
  SyscallFilter filter;
  allowDuty(filter, duty);
  allowWaking(filter);
  allowLibrary(filter);
  killForHostile(filter);
  filter.otherwise(Answer::kEnosys).install(false);
}

}  // namespace vivarium

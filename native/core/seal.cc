// See seal.h. A list of what is denied, not of what is allowed: Node, its libraries and what they call change with
// every version. What is denied fails with EPERM, which JavaScript meets as an error with a name.
#include "core/seal.h"

#include <linux/sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>

#include "core/syscall_filter.h"

namespace vivarium {
namespace {

using Answer = SyscallFilter::Answer;

constexpr uint32_t kAll = UINT32_MAX;
constexpr uint32_t kNamespaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
// SOCK_NONBLOCK and SOCK_CLOEXEC stand beside the type.
constexpr uint32_t kSocketType = 0xf;

// Other processes, the kernel and the system: nothing that a machine or Node has to do with. By a new io_uring
// connections would be made that no filter sees; the rings that are there can't (see Uring::keepInReserve).
void denySystem(SyscallFilter& filter) {
  filter.on(
      {
          SYS_ptrace,
          SYS_process_vm_readv,
          SYS_process_vm_writev,
          SYS_kcmp,
          SYS_pidfd_getfd,
          SYS_bpf,
          SYS_perf_event_open,
          SYS_add_key,
          SYS_request_key,
          SYS_keyctl,
          SYS_kexec_load,
          SYS_kexec_file_load,
          SYS_init_module,
          SYS_finit_module,
          SYS_delete_module,
          SYS_reboot,
          SYS_swapon,
          SYS_swapoff,
          SYS_quotactl,
          SYS_acct,
          SYS_settimeofday,
          SYS_clock_settime,
          SYS_clock_adjtime,
          SYS_adjtimex,
          SYS_sethostname,
          SYS_setdomainname,
          SYS_iopl,
          SYS_ioperm,
          SYS_syslog,
          SYS_vhangup,
          SYS_io_uring_setup,
          SYS_fanotify_init,
          SYS_open_by_handle_at,
          SYS_name_to_handle_at,
      },
      Answer::kEperm);
  // Memory, semaphores and queues that all processes of a user find by number or name.
  filter.on({SYS_shmget, SYS_shmat, SYS_shmctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget,
             SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink},
            Answer::kEperm);
  // Limits of others: one of CPU time ends them.
  filter.onOther(SYS_prlimit64, 0, kAll, 0, Answer::kEperm);
}

// Landlock has no word for modes, owners and attributes, of which a file's owner has all wherever it lies.
void denyModes(SyscallFilter& filter) {
  constexpr int kFchmodat2 = 452;
  filter.on({SYS_chmod, SYS_fchmod, SYS_fchmodat, kFchmodat2, SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat,
             SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr},
            Answer::kEperm);
}

void denyNamespaces(SyscallFilter& filter) {
  filter.on({SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_move_mount, SYS_open_tree,
             SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr},
            Answer::kEperm);
}

// Threads, and nothing else. clone3's flags are in memory, where a filter does not see; the C library takes ENOSYS for
// an answer and calls clone.
void denyPrograms(SyscallFilter& filter) {
  filter.on({SYS_execve, SYS_execveat, SYS_fork, SYS_vfork}, Answer::kEperm)
      .on({SYS_clone3}, Answer::kEnosys)
      .onOther(SYS_clone, 0, CLONE_THREAD, CLONE_THREAD, Answer::kEperm)
      .onOther(SYS_clone, 0, kNamespaces, 0, Answer::kEperm);
}

// Sockets on which it listens are made; where they may be bound to is Landlock's business.
void denyNetwork(SyscallFilter& filter, bool taps) {
  if (taps) {
    filter.onEqual(SYS_socket, 0, kAll, AF_INET, Answer::kAllow)
        .onEqual(SYS_socket, 0, kAll, AF_NETLINK, Answer::kAllow);
  }
  filter.onOther(SYS_socket, 0, kAll, AF_UNIX, Answer::kEperm);
  // The C library asks for an interface by one of datagrams. SOCK_RAW of AF_UNIX is one, too (unix(7)).
  if (!taps) filter.onOther(SYS_socket, 1, kSocketType, SOCK_STREAM, Answer::kEperm);
  filter.onOther(SYS_socketpair, 1, kSocketType, SOCK_STREAM, Answer::kEperm);
}

// sendmsg(2) has its address in memory; without sockets of datagrams it is of no use but over those that are connected,
// such as that to the keeper of passt (fence/keeper.h).
void denyConnections(SyscallFilter& filter) {
  filter.on({SYS_connect, SYS_sendto}, Answer::kEperm);
}

}  // namespace

int sealProcess(const Seal& seal) {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return errno;
  SyscallFilter filter;
  denySystem(filter);
  denyModes(filter);
  denyNamespaces(filter);
  denyPrograms(filter);
  denyNetwork(filter, seal.taps);
  if (!seal.connects) denyConnections(filter);
  return filter.otherwise(Answer::kAllow).install(true);
}

}  // namespace vivarium

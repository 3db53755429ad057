// Plays a thread of ours, under the filter that such a thread puts on itself: `probe DUTY CALL` makes the call as a
// thread with that duty (the number in ThreadDuty) and prints the errno that it gives, 0 for none. What the filter
// kills ends the process. `probe sealed CALL` makes it on a thread that runs already when the process is sealed, as
// Node's do.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <map>
#include <string>
#include <thread>

#include "core/seal.h"
#include "thread/thread_fence.h"

namespace {

long call(const std::string& name) {
  static char zeros[4096];
  char* none[] = {nullptr};
  const std::map<std::string, long (*)(char**)> calls = {
      {"execve", [](char** empty) { return syscall(SYS_execve, "/bin/true", empty, empty); }},
      {"socket", [](char**) { return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); }},
      {"ptrace", [](char**) { return syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0); }},
      {"fork", [](char**) { return syscall(SYS_fork); }},
      {"io_uring", [](char**) { return syscall(SYS_io_uring_setup, 0, nullptr); }},
      {"open", [](char**) { return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY); }},
      {"uname", [](char**) { return syscall(SYS_uname, zeros); }},
      {"gettid", [](char**) { return syscall(SYS_gettid); }},
      {"ioctl", [](char**) { return syscall(SYS_ioctl, -1, 0, 0); }},
      {"fdatasync", [](char**) { return syscall(SYS_fdatasync, -1); }},
      {"connect", [](char**) { return syscall(SYS_connect, -1, nullptr, 0); }},
      {"unshare", [](char**) { return syscall(SYS_unshare, 0); }},
      {"clone3", [](char**) { return syscall(SYS_clone3, nullptr, 0); }},
      {"internet", [](char**) { return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }},
      {"datagram", [](char**) { return syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); }},
      {"raw", [](char**) { return syscall(SYS_socket, AF_UNIX, SOCK_RAW, 0); }},
      {"pair",
       [](char**) {
         int pair[2];
         return syscall(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
       }},
      {"sendto", [](char**) { return syscall(SYS_sendto, -1, zeros, 1, 0, nullptr, 0); }},
      {"chmod", [](char**) { return syscall(SYS_chmod, "/nowhere", 0600); }},
      {"fchmod", [](char**) { return syscall(SYS_fchmod, -1, 0600); }},
      {"fchmodat2", [](char**) { return syscall(452, -1, "nowhere", 0600, 0); }},
      {"chown", [](char**) { return syscall(SYS_fchownat, AT_FDCWD, "/nowhere", 0, 0, 0); }},
      {"xattr", [](char**) { return syscall(SYS_fsetxattr, -1, "user.x", zeros, 1, 0); }},
      {"shm", [](char**) { return syscall(SYS_shmget, 1, 4096, 0600); }},
      {"mq", [](char**) { return syscall(SYS_mq_open, "nowhere", O_RDONLY, 0, nullptr); }},
      {"limits of others", [](char**) { return syscall(SYS_prlimit64, 1, 0, nullptr, zeros); }},
      {"own limits", [](char**) { return syscall(SYS_prlimit64, 0, 0, nullptr, zeros); }},
      // As if it were one: 0 where the process can't be dumped.
      {"dumpable",
       [](char**) {
         errno = prctl(PR_GET_DUMPABLE);
         return errno == 0 ? 0L : -1L;
       }},
      {"epoll_wait", [](char**) { return syscall(SYS_epoll_wait, -1, zeros, 1, 0); }},
  };
  return calls.at(name)(none);
}

}  // namespace

int main(int, char** argv) {
  int error = 0;
  if (argv[1] == std::string("sealed")) {
    std::promise<void> sealed;
    std::thread thread([&] {
      sealed.get_future().wait();
      error = call(argv[2]) < 0 ? errno : 0;
    });
    if (vivarium::sealProcess({false, false}) != 0) return 1;
    sealed.set_value();
    thread.join();
    std::printf("%d\n", error);
    return 0;
  }
  std::thread([&] {
    vivarium::fenceThread(static_cast<vivarium::ThreadDuty>(std::atoi(argv[1])));
    error = call(argv[2]) < 0 ? errno : 0;
  }).join();
  std::printf("%d\n", error);
  return 0;
}

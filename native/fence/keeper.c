// See keeper.h. Its peer may be a guest that has broken out: everything from there is bounded, and held against what
// vivarium itself asks for (lib/vsp/net/passt.ts). Nothing of it becomes a path, a program or a variable.
#define _GNU_SOURCE
#include "fence/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  kChannel = 3,  // of the keeper; of a passt, its frames
  kMaxBytes = 32 * 1024,
  kMaxArguments = 1024,
  kMaxValueBytes = 64,
  kMaxRunning = 64,
  // As in lib/vsp/net/passt-start.ts, halved, since the kernel takes twice what it is told. Set here once more: the
  // fenced process may not go beyond net.core.wmem_max, where root's may.
  kSendBufferBytes = 2 * 1024 * 1024,
};

static struct Passt {
  pid_t pid;
  int words;
  int isKilled;
} running[kMaxRunning];
static int runningCount;

static const struct Option {
  const char* name;
  const char* characters;  // of its value; NULL: it has none
  int takesNone;
} kOptions[] = {
    {"--address", "0123456789.", 0},
    {"--netmask", "0123456789", 0},
    {"--gateway", "0123456789.", 0},
    {"--mtu", "0123456789", 0},
    {"--no-map-gw", NULL, 0},
    // ADDRESS/PORT:PORT. None of passt's ranges, exclusions, interfaces, "all" and "auto".
    {"--tcp-ports", "0123456789abcdefABCDEF.:/", 1},
    {"--udp-ports", "0123456789abcdefABCDEF.:/", 1},
};

static const struct Option* optionOf(const char* name) {
  for (size_t each = 0; each < sizeof kOptions / sizeof *kOptions; each++)
    if (strcmp(kOptions[each].name, name) == 0) return &kOptions[each];
  return NULL;
}

static int isValueOf(const struct Option* option, const char* text) {
  const size_t length = strlen(text);
  if (strcmp(text, "none") == 0) return option->takesNone;
  return length > 0 && length <= kMaxValueBytes && strspn(text, option->characters) == length;
}

// Puts the arguments in `text` behind those of `argv`, which ends with NULL then. 0 where one is not on the list.
static int takeArguments(const char* text, size_t length, const char** argv, int count) {
  if (length == 0 || text[length - 1] != '\0') return 0;
  const struct Option* open = NULL;
  for (const char* at = text; at < text + length; at += strlen(at) + 1) {
    if (count == kMaxArguments) return 0;
    if (open != NULL) {
      if (!isValueOf(open, at)) return 0;
      open = NULL;
    } else {
      const struct Option* option = optionOf(at);
      if (option == NULL) return 0;
      if (option->characters != NULL) open = option;
    }
    argv[count++] = at;
  }
  argv[count] = NULL;
  return open == NULL;
}

static int isUnixStream(int fd) {
  int domain, type;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX) return 0;
  size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

// Never waits for who should read it.
static void say(int words, const char* text) {
  send(words, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
}

_Noreturn static void becomePasst(const char* program, const char** argv, int frames, int words,
                                  const sigset_t* signals) {
  static char* none[] = {NULL};
  setsid();
  sigprocmask(SIG_SETMASK, signals, NULL);
  // All others close by themselves.
  if (dup2(frames, kChannel) >= 0 && dup2(words, STDERR_FILENO) >= 0) {
    // Without variables: the library path of whoever started the machine may lead to where the machine can write.
    execve(program, (char**)argv, none);
  }
  say(words, errno == ENOENT ? "passt is not installed\n" : strerror(errno));
  _exit(127);
}

static void start(const char* program, const char** argv, int frames, int words, const sigset_t* signals) {
  if (runningCount == kMaxRunning) {
    say(words, "too many of them run");
    close(words);
    return;
  }
  setsockopt(frames, SOL_SOCKET, SO_SNDBUFFORCE, &(int){kSendBufferBytes}, sizeof(int));
  const pid_t pid = fork();
  if (pid == 0) becomePasst(program, argv, frames, words, signals);
  if (pid > 0) {
    running[runningCount++] = (struct Passt){.pid = pid, .words = words};
    return;
  }
  say(words, strerror(errno));
  close(words);
}

// Takes one request. 0 at the end of them; who sends an empty one has said so, too.
static int serve(const char* program, const sigset_t* signals) {
  static char text[kMaxBytes];
  static const char* argv[kMaxArguments + 1] = {"passt", "--foreground", "--quiet", "--fd", "3"};
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec part = {text, sizeof text};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  const ssize_t length = recvmsg(kChannel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return errno == EAGAIN || errno == EINTR;
  int fds[2];
  size_t count = 0;
  const struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), count * sizeof(int));
  }
  if (length == 0 && count == 0) return 0;
  const int isWhole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  if (isWhole && count == 2 && isUnixStream(fds[0]) && isUnixStream(fds[1]) &&
      takeArguments(text, (size_t)length, argv, 5)) {
    start(program, argv, fds[0], fds[1], signals);
    close(fds[0]);
    return 1;
  }
  for (size_t each = 0; each < count; each++) close(fds[each]);
  return 1;
}

static void reap(void) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    int at = 0;
    while (at < runningCount && running[at].pid != pid) at++;
    if (at == runningCount) continue;
    char line[64];
    const int isSignal = WIFSIGNALED(status);
    snprintf(line, sizeof line, "\nit ended with %s %d\n", isSignal ? "signal" : "status",
             isSignal ? WTERMSIG(status) : WEXITSTATUS(status));
    say(running[at].words, line);
    // Held until now: what it listened on is free again when its words end.
    close(running[at].words);
    running[at] = running[--runningCount];
  }
}

static void ignored(int signal) {
  (void)signal;
}

_Noreturn static void keep(const char* program) {
  sigset_t child, before;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  // Arrives while it waits for requests alone.
  sigprocmask(SIG_BLOCK, &child, &before);
  sigdelset(&before, SIGCHLD);
  sigaction(SIGCHLD, &(struct sigaction){.sa_handler = ignored}, NULL);
  for (;;) {
    reap();
    struct pollfd polled[1 + kMaxRunning] = {{.fd = kChannel, .events = POLLIN}};
    const int count = runningCount;
    for (int each = 0; each < count; each++)
      polled[1 + each] = (struct pollfd){.fd = running[each].isKilled ? -1 : running[each].words, .events = POLLRDHUP};
    if (ppoll(polled, (nfds_t)count + 1, NULL, &before) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    for (int each = 0; each < count; each++) {
      if (polled[1 + each].revents == 0) continue;
      kill(running[each].pid, SIGKILL);
      running[each].isKilled = 1;
    }
    if (polled[0].revents != 0 && !serve(program, &before)) break;
  }
  for (int each = 0; each < runningCount; each++) kill(running[each].pid, SIGKILL);
  _exit(0);
}

static void closeFrom(unsigned first) {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, first, ~0U, 0) == 0) return;
#endif
  for (int fd = (int)first; fd < getdtablesize(); fd++) close(fd);
}

int forkKeeper(const char* program) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0) return -1;
  const pid_t pid = fork();
  if (pid != 0) {
    close(pair[1]);
    if (pid > 0) return pair[0];
    close(pair[0]);
    return -1;
  }
  // A session of its own keeps a terminal's Ctrl-C from it. The machine's process, of the same user, may not look into
  // it.
  setsid();
  prctl(PR_SET_NAME, "passt-keeper", 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  close(pair[0]);
  if (pair[1] != kChannel && dup2(pair[1], kChannel) < 0) _exit(1);
  fcntl(kChannel, F_SETFD, FD_CLOEXEC);
  closeFrom(kChannel + 1);
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < kChannel; fd++)
    if (dup2(null, fd) < 0) _exit(1);
  close(null);
  if (chdir("/") < 0) _exit(1);
  keep(program);
}

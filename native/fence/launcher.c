// vivarium-fence: takes from itself what the process that holds a machine does not need, and becomes that process.
//
// no_new_privs, capabilities, resource limits and Landlock belong to threads and are inherited over execve(2), and Node
// has threads before its first line runs: so they are set here, where there is one thread, and never in Node. It
// chooses nothing: which paths and capabilities are left is said by its caller (lib/cli/fence-launch.ts).
//
//   vivarium-fence [--read PATH | --run PATH | --write PATH | --device PATH | --keep CAPABILITY | --no-paths |
//   --passt PATH]... -- PROGRAM ARG...
//
//   vivarium-fence --abi    prints the version of Landlock here, 0 where there is none
//
//   --read    files below it are read                   --device  is opened for reading and writing, and takes ioctls
//   --run     they are read and executed                --keep    a capability's number that stays, if it is there
//   --write   they are read, written, made, removed     --no-paths  paths are not fenced
//   --passt   that program can be asked for from within (keeper.h)
//
// Paths that are not there are passed over. The program finds the version of Landlock that holds it in VIVARIUM_FENCED,
// 0 where there is none or it was not wanted; in VIVARIUM_PASST_KEEPER, with --passt, the number of its socket to the
// keeper. What fails ends it with status 125 and one line; nothing runs half fenced.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fence/keeper.h"
#include "fence/landlock.h"

enum { kFailure = 125 };

static void fail(const char* step, const char* about) {
  fprintf(stderr, "vivarium-fence: %s: %s%s%s\n", step, about, *about == '\0' ? "" : ": ", strerror(errno));
  exit(kFailure);
}

static int landlockAbi(void) {
  const long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);
  // Not compiled in (ENOSYS) or not switched on (EOPNOTSUPP).
  return abi < 0 ? 0 : (int)abi;
}

// What the kernel's Landlock knows of what is to be denied.
static uint64_t handledPaths(int abi) {
  uint64_t handled = FENCE_FS_ABI1;
  if (abi >= 2) handled |= FENCE_FS_REFER;
  if (abi >= 3) handled |= FENCE_FS_TRUNCATE;
  if (abi >= 5) handled |= FENCE_FS_IOCTL_DEV;
  return handled;
}

static int makeRuleset(int abi) {
  struct FenceRulesetAttr attr = {.handled_access_fs = handledPaths(abi)};
  size_t size = sizeof attr.handled_access_fs;
  if (abi >= 4) {
    // With no rule for any port: a machine's process speaks no TCP.
    attr.handled_access_net = FENCE_NET_BIND_TCP | FENCE_NET_CONNECT_TCP;
    size = offsetof(struct FenceRulesetAttr, scoped);
  }
  if (abi >= 6) {
    attr.scoped = FENCE_SCOPE_ABSTRACT_UNIX_SOCKET | FENCE_SCOPE_SIGNAL;
    size = sizeof attr;
  }
  const long fd = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
  if (fd < 0) fail("landlock_create_ruleset", "");
  return (int)fd;
}

static void allow(int ruleset, int abi, uint64_t access, const char* path) {
  const int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return;
    fail("open", path);
  }
  struct stat found;
  if (fstat(fd, &found) < 0) fail("fstat", path);
  access &= handledPaths(abi);
  if (!S_ISDIR(found.st_mode)) access &= FENCE_FS_OF_FILES;
  struct FencePathAttr attr = {.allowed_access = access, .parent_fd = fd};
  if (syscall(SYS_landlock_add_rule, ruleset, FENCE_RULE_PATH_BENEATH, &attr, 0) < 0) fail("landlock_add_rule", path);
  close(fd);
}

static uint64_t accessOf(const char* option) {
  if (strcmp(option, "--read") == 0) return FENCE_READ;
  if (strcmp(option, "--run") == 0) return FENCE_READ | FENCE_FS_EXECUTE;
  if (strcmp(option, "--write") == 0) return FENCE_WRITE;
  if (strcmp(option, "--device") == 0) return FENCE_FS_READ_FILE | FENCE_FS_WRITE_FILE | FENCE_FS_IOCTL_DEV;
  return 0;
}

// What is not in `kept` goes: also from the bounding set, so that no program that is executed later brings it back.
static void dropCapabilities(uint64_t kept) {
  for (int capability = 0; capability <= 63; capability++) {
    if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) != 1 || (kept >> capability & 1) != 0) continue;
    // Only who has CAP_SETPCAP may; for others no_new_privs keeps programs from bringing anything.
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EPERM) fail("PR_CAPBSET_DROP", "");
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) fail("PR_CAP_AMBIENT", "");
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct sets[2];
  if (syscall(SYS_capget, &header, sets) < 0) fail("capget", "");
  for (int word = 0; word < 2; word++) {
    const uint32_t mask = (uint32_t)(kept >> (32 * word));
    sets[word].permitted &= mask;
    sets[word].effective &= mask;
    sets[word].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets) < 0) fail("capset", "");
  // An ordinary user's process keeps over execve(2) only what is ambient. Root's gets its bounding set.
  for (int capability = 0; capability <= 63; capability++) {
    const int word = capability / 32;
    if (geteuid() == 0 || (sets[word].permitted >> capability % 32 & 1) == 0) continue;
    sets[word].inheritable |= UINT32_C(1) << capability % 32;
    if (syscall(SYS_capset, &header, sets) < 0) fail("capset", "");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0) fail("PR_CAP_AMBIENT_RAISE", "");
  }
}

static void limit(void) {
  // Guest memory is in a core dump.
  const struct rlimit none = {0, 0};
  if (setrlimit(RLIMIT_CORE, &none) < 0) fail("RLIMIT_CORE", "");
}

static void tell(const char* variable, int number) {
  char text[16];
  snprintf(text, sizeof text, "%d", number);
  if (setenv(variable, text, 1) < 0) fail("setenv", "");
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--abi") == 0) return printf("%d\n", landlockAbi()) < 0;
  int at = 1;
  int paths = 1;
  const char* passt = NULL;
  uint64_t kept = 0;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
    if (strcmp(argv[at], "--no-paths") == 0) {
      paths = 0;
      continue;
    }
    errno = EINVAL;
    if (at + 1 >= argc) fail("usage", argv[at]);
    if (strcmp(argv[at], "--keep") == 0) {
      kept |= UINT64_C(1) << (atoi(argv[++at]) & 63);
    } else if (strcmp(argv[at], "--passt") == 0) {
      passt = argv[++at];
    } else if (accessOf(argv[at]) != 0) {
      at++;
    } else {
      fail("usage", argv[at]);
    }
  }
  errno = EINVAL;
  if (at + 1 >= argc) fail("usage", "-- PROGRAM is wanted");

  // Has this process's rights, so it comes before they go.
  unsetenv("VIVARIUM_PASST_KEEPER");
  if (passt != NULL) {
    const int channel = forkKeeper(passt);
    if (channel < 0) fail("fork", "passt");
    tell("VIVARIUM_PASST_KEEPER", channel);
  }
  limit();
  dropCapabilities(kept);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("PR_SET_NO_NEW_PRIVS", "");
  const int abi = paths ? landlockAbi() : 0;
  if (abi > 0) {
    const int ruleset = makeRuleset(abi);
    for (int each = 1; each < at; each++) {
      const uint64_t access = accessOf(argv[each]);
      if (access != 0)
        allow(ruleset, abi, access, argv[++each]);
      else if (strcmp(argv[each], "--no-paths") != 0)
        each++;
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) fail("landlock_restrict_self", "");
    close(ruleset);
  }
  tell("VIVARIUM_FENCED", abi);
  execv(argv[at + 1], &argv[at + 1]);
  fail("execve", argv[at + 1]);
}

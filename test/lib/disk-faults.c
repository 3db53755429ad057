/*
 * A disk in trouble, for one process that is started with this as LD_PRELOAD: calls that change files in one folder
 * fail, or wait. What is to happen stands in a page shared with who tests (disk-faults.mjs), in the file that
 * VIVARIUM_DISK_FAULTS names. io_uring is refused, so that requests of disks are calls as well. Calls that read, and
 * those that delete, are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { kOff, kFail, kHold };

/* Little-endian words, then texts that end with NUL; disk-faults.mjs has the same. */
struct Page {
  _Atomic uint32_t mode;
  /* kFail: the number of the call that fails, the first being 1, and with what. */
  uint32_t failAt;
  uint32_t errnoNumber;
  _Atomic uint32_t calls;
  /* kHold: writes of groups that wait at the moment, and how many more may go on. */
  _Atomic uint32_t waiting;
  _Atomic uint32_t permits;
  /* For how long reads of groups wait, in any mode. */
  _Atomic uint32_t readDelayUs;
  char padding[4];
  /* The call that failed: its name and its file. */
  char failed[896];
  /* Only such calls count, where these are not empty: by their name, and a pattern (fnmatch) of files in the folder,
   * which is ".". */
  char call[32];
  char file[64];
  char folder[1024];
};

static struct Page* page;

__attribute__((constructor)) static void begin(void) {
  const char* name = getenv("VIVARIUM_DISK_FAULTS");
  if (name == NULL) return;
  int fd = open(name, O_RDWR | O_CLOEXEC);
  void* mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) abort();
  close(fd);
  page = mapped;
}

static int concerns(const char* path) {
  size_t length = strlen(page->folder);
  return strncmp(path, page->folder, length) == 0 && (path[length] == 0 || path[length] == '/');
}

static int counts(const char* call, const char* path) {
  const char* file = path + strlen(page->folder);
  if (page->call[0] != 0 && strcmp(call, page->call) != 0) return 0;
  return page->file[0] == 0 || fnmatch(page->file, *file == 0 ? "." : file + 1, FNM_PATHNAME) == 0;
}

/* Whether this call is the one that fails; errno is set then. */
static int fails(const char* call, const char* path) {
  if (page == NULL || page->mode != kFail || !concerns(path) || !counts(call, path)) return 0;
  if (atomic_fetch_add(&page->calls, 1) + 1 != page->failAt) return 0;
  snprintf(page->failed, sizeof page->failed, "%s %s", call, path);
  errno = (int)page->errnoNumber;
  return 1;
}

static const char* pathOf(int fd, char path[1024]) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, 1023);
  path[length < 0 ? 0 : length] = 0;
  return path;
}

static int failsAt(const char* call, int fd) {
  char path[1024];
  return page != NULL && page->mode == kFail && fails(call, pathOf(fd, path));
}

static int mayGoOn(void) {
  uint32_t left = page->permits;
  while (left > 0)
    if (atomic_compare_exchange_weak(&page->permits, &left, left - 1)) return 1;
  return page->mode != kHold;
}

static void hold(int fd) {
  char path[1024];
  if (page == NULL || page->mode != kHold || !concerns(pathOf(fd, path))) return;
  atomic_fetch_add(&page->waiting, 1);
  while (!mayGoOn()) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  atomic_fetch_sub(&page->waiting, 1);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void* bytes, size_t length) {
  return failsAt("write", fd) ? -1 : REAL(write)(fd, bytes, length);
}
ssize_t writev(int fd, const struct iovec* pieces, int count) {
  return failsAt("writev", fd) ? -1 : REAL(writev)(fd, pieces, count);
}
ssize_t pwrite(int fd, const void* bytes, size_t length, off_t offset) {
  return failsAt("pwrite", fd) ? -1 : REAL(pwrite)(fd, bytes, length, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t length, off64_t offset) {
  return failsAt("pwrite", fd) ? -1 : REAL(pwrite64)(fd, bytes, length, offset);
}
/* The addon's, of groups; the only ones that wait: none of them is on the JavaScript thread. */
ssize_t pwritev(int fd, const struct iovec* pieces, int count, off_t offset) {
  hold(fd);
  return failsAt("pwritev", fd) ? -1 : REAL(pwritev)(fd, pieces, count, offset);
}
ssize_t preadv(int fd, const struct iovec* pieces, int count, off_t offset) {
  char path[1024];
  if (page != NULL && page->readDelayUs > 0 && concerns(pathOf(fd, path)))
    nanosleep(&(struct timespec){.tv_nsec = 1000l * page->readDelayUs}, NULL);
  return REAL(preadv)(fd, pieces, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec* pieces, int count, off64_t offset) {
  return failsAt("pwritev", fd) ? -1 : REAL(pwritev64)(fd, pieces, count, offset);
}
ssize_t sendfile64(int out, int in, off64_t* offset, size_t length) {
  return failsAt("sendfile", out) ? -1 : REAL(sendfile64)(out, in, offset, length);
}
int fsync(int fd) {
  return failsAt("fsync", fd) ? -1 : REAL(fsync)(fd);
}
int fdatasync(int fd) {
  return failsAt("fdatasync", fd) ? -1 : REAL(fdatasync)(fd);
}
int ftruncate(int fd, off_t length) {
  return failsAt("ftruncate", fd) ? -1 : REAL(ftruncate)(fd, length);
}
int ftruncate64(int fd, off64_t length) {
  return failsAt("ftruncate", fd) ? -1 : REAL(ftruncate64)(fd, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
  return failsAt("fallocate", fd) ? -1 : REAL(fallocate)(fd, mode, offset, length);
}
int mkdir(const char* path, mode_t mode) {
  return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
int rename(const char* from, const char* to) {
  return fails("rename", to) ? -1 : REAL(rename)(from, to);
}
int renameat2(int fromFolder, const char* from, int toFolder, const char* to, unsigned flags) {
  return fails("renameat2", to) ? -1 : REAL(renameat2)(fromFolder, from, toFolder, to, flags);
}

static int opens(const char* path, int flags, unsigned mode) {
  if ((flags & O_CREAT) != 0 && fails("open", path)) return -1;
  return REAL(openat)(AT_FDCWD, path, flags, mode);
}
static unsigned modeOf(int flags, va_list rest) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, unsigned) : 0;
}
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  unsigned mode = modeOf(flags, rest);
  va_end(rest);
  return opens(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  unsigned mode = modeOf(flags, rest);
  va_end(rest);
  return opens(path, flags, mode);
}

long syscall(long number, ...) {
  va_list rest;
  va_start(rest, number);
  long values[6];
  for (int at = 0; at < 6; at++) values[at] = va_arg(rest, long);
  va_end(rest);
  if (page != NULL && number == SYS_io_uring_setup) {
    errno = ENOSYS;
    return -1;
  }
  if (number == SYS_copy_file_range && failsAt("copy_file_range", (int)values[2])) return -1;
  return REAL(syscall)(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

// The descriptor comes from /dev/userfaultfd, where that may be opened, else from the system call, which wants
// CAP_SYS_PTRACE or vm.unprivileged_userfaultfd for faults of the kernel (KVM's emulation, read(2)). Those are wanted.
#include "memory/user_fault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr const char* kDevice = "/dev/userfaultfd";
constexpr unsigned long kNew = _IO(UFFDIO, 0x00);  // USERFAULTFD_IOC_NEW, Linux 6.1
constexpr size_t kPageBytes = 4096;
constexpr size_t kMessages = 32;

// UFFDIO_POISON, Linux 6.6.
struct Poison {
  uffdio_range range;
  uint64_t mode;
  int64_t updated;
};
constexpr unsigned long kPoisonRequest = _IOWR(UFFDIO, 0x08, Poison);

// UFFDIO_MOVE, Linux 6.8.
struct Move {
  uint64_t to;
  uint64_t from;
  uint64_t bytes;
  uint64_t mode;
  int64_t moved;
};
constexpr unsigned long kMoveRequest = _IOWR(UFFDIO, 0x05, Move);

constexpr uint64_t kContinueProtected = 1 << 1;  // UFFDIO_CONTINUE_MODE_WP, Linux 6.4

int openDescriptor(const char** step) {
  *step = kDevice;
  const Fd device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (device.valid()) {
    *step = "USERFAULTFD_IOC_NEW";
    return ::ioctl(device.get(), kNew, O_CLOEXEC | O_NONBLOCK);
  }
  *step = "userfaultfd";
  return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
}

uffdio_range rangeOf(const uint8_t* start, size_t bytes) {
  return {reinterpret_cast<uint64_t>(start), bytes};
}

// Calls `step(at, left)`, which gives how far it came or a negated errno, until all pages are done.
template <typename Step>
int eachPart(size_t bytes, Step step) {
  for (size_t at = 0; at < bytes;) {
    const int64_t done = step(at, bytes - at);
    if (done > 0) {
      at += static_cast<size_t>(done);
    } else if (done == -EEXIST) {
      at += kPageBytes;
    } else if (done != -EAGAIN && done != 0) {
      return static_cast<int>(-done);
    }
  }
  return 0;
}

// What an ioctl has done: `result` is its own, `done` what it wrote for a part.
int64_t partOf(int result, int64_t done, size_t all) {
  if (result == 0) return static_cast<int64_t>(all);
  const int error = errno;
  if (done > 0) return done;
  return done < 0 ? done : -error;
}

}  // namespace

UserFaultSupport UserFault::probe() {
  UserFaultSupport support;
  const Fd fd(openDescriptor(&support.step));
  if (!fd.valid()) {
    support.errnoNumber = errno;
    return support;
  }
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(fd.get(), UFFDIO_API, &api) < 0) {
    support.step = "UFFDIO_API";
    support.errnoNumber = errno;
    return support;
  }
  support.step = nullptr;
  support.features = api.features;
  return support;
}

UserFault::UserFault() {
  // A descriptor takes one handshake, and refuses what it does not know: the first one is asked what there is.
  const UserFaultSupport support = probe();
  if (support.step != nullptr) throwSyscall(support.step, support.errnoNumber, "userfaultfd");
  const char* step;
  fd_ = Fd(openDescriptor(&step));
  if (!fd_.valid()) throwSyscall(step, errno, "userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features =
      support.features & (kMissingShmem | kWriteProtect | kWpShmem | kWpUnpopulated | kPoison | kMinorShmem | kMove);
  features_ = api.features;
  if (::ioctl(fd_.get(), UFFDIO_API, &api) < 0) throwSyscall("UFFDIO_API", errno, "userfaultfd");
}

void UserFault::watch(const uint8_t* start, size_t bytes, Watch what) const {
  uffdio_register request{};
  request.range = rangeOf(start, bytes);
  request.mode = (what.missing ? UFFDIO_REGISTER_MODE_MISSING : 0) | (what.minor ? UFFDIO_REGISTER_MODE_MINOR : 0) |
                 (what.writes ? UFFDIO_REGISTER_MODE_WP : 0);
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) < 0) throwSyscall("UFFDIO_REGISTER", errno);
}

int UserFault::unwatch(const uint8_t* start, size_t bytes) const {
  uffdio_range range = rangeOf(start, bytes);
  return ::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range) < 0 ? errno : 0;
}

int UserFault::protect(const uint8_t* start, size_t bytes) const {
  uffdio_writeprotect request{rangeOf(start, bytes), UFFDIO_WRITEPROTECT_MODE_WP};
  int result;
  while ((result = ::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request)) < 0 && errno == EAGAIN) {
  }
  return result < 0 ? errno : 0;
}

int UserFault::unprotect(const uint8_t* start, size_t bytes) const {
  uffdio_writeprotect request{rangeOf(start, bytes), 0};
  int result;
  while ((result = ::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request)) < 0 && errno == EAGAIN) {
  }
  return result < 0 ? errno : 0;
}

int UserFault::copy(uint8_t* to, const uint8_t* from, size_t bytes, bool protectedCopy) const {
  const int error = eachPart(bytes, [&](size_t at, size_t left) {
    uffdio_copy request{};
    request.dst = reinterpret_cast<uint64_t>(to + at);
    request.src = reinterpret_cast<uint64_t>(from + at);
    request.len = left;
    request.mode = protectedCopy ? UFFDIO_COPY_MODE_WP : 0;
    const int result = ::ioctl(fd_.get(), UFFDIO_COPY, &request);
    return partOf(result, request.copy, left);
  });
  return error;
}

int UserFault::zero(uint8_t* to, size_t bytes) const {
  return eachPart(bytes, [&](size_t at, size_t left) {
    uffdio_zeropage request{};
    request.range = rangeOf(to + at, left);
    const int result = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &request);
    return partOf(result, request.zeropage, left);
  });
}

int UserFault::proceed(uint8_t* to, size_t bytes, bool protectedPages) const {
  return eachPart(bytes, [&](size_t at, size_t left) {
    uffdio_continue request{};
    request.range = rangeOf(to + at, left);
    request.mode = protectedPages ? kContinueProtected : 0;
    const int result = ::ioctl(fd_.get(), UFFDIO_CONTINUE, &request);
    return partOf(result, request.mapped, left);
  });
}

int UserFault::move(uint8_t* to, uint8_t* from, size_t bytes) const {
  return eachPart(bytes, [&](size_t at, size_t left) {
    Move request{reinterpret_cast<uint64_t>(to + at), reinterpret_cast<uint64_t>(from + at), left, 0, 0};
    const int result = ::ioctl(fd_.get(), kMoveRequest, &request);
    return partOf(result, request.moved, left);
  });
}

int UserFault::poison(uint8_t* to, size_t bytes) const {
  return eachPart(bytes, [&](size_t at, size_t left) {
    Poison request{rangeOf(to + at, left), 0, 0};
    const int result = ::ioctl(fd_.get(), kPoisonRequest, &request);
    return partOf(result, request.updated, left);
  });
}

int UserFault::wake(const uint8_t* start, size_t bytes) const {
  uffdio_range range = rangeOf(start, bytes);
  return ::ioctl(fd_.get(), UFFDIO_WAKE, &range) < 0 ? errno : 0;
}

size_t UserFault::read(std::span<Fault> into) const {
  std::array<uffd_msg, kMessages> messages;
  const size_t wanted = std::min(into.size(), messages.size());
  const ssize_t got = ::read(fd_.get(), messages.data(), wanted * sizeof(uffd_msg));
  if (got <= 0) return 0;
  size_t count = 0;
  for (size_t index = 0; index < static_cast<size_t>(got) / sizeof(uffd_msg); index++) {
    const uffd_msg& message = messages[index];
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    const uint64_t flags = message.arg.pagefault.flags;
    into[count++] = Fault{message.arg.pagefault.address, (flags & UFFD_PAGEFAULT_FLAG_WP) == 0,
                          (flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0};
  }
  return count;
}

}  // namespace vivarium

// eventfd(2), non-blocking and closed on exec.
#include "core/event_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {

EventFd::EventFd(const CountersPtr& counters, uint32_t initial)
    : fd_(::eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK)), counted_(counters, &Counters::eventFds) {
  if (!fd_.valid()) throwSyscall("eventfd", errno);
}

void EventFd::write(uint64_t count) const {
  ssize_t written;
  do {
    written = ::write(fd_.get(), &count, sizeof count);
  } while (written < 0 && errno == EINTR);
  if (written < 0) throwSyscall("write", errno, "eventfd");
}

uint64_t EventFd::read() const {
  uint64_t count = 0;
  ssize_t got;
  do {
    got = ::read(fd_.get(), &count, sizeof count);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return 0;
    throwSyscall("read", errno, "eventfd");
  }
  return count;
}

}  // namespace vivarium

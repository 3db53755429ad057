// Failures of the kernel and of callers, and the one place where an ioctl is issued and checked.
#include "core/failure.h"

#include <string.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace vivarium {

Failure::Failure(FailureKind kind, std::string name, int errnoNumber, std::string detail)
    : kind_(kind), name_(std::move(name)), errnoNumber_(errnoNumber), detail_(std::move(detail)) {
  what_ = name_ + ": " + errnoName(errnoNumber_);
  if (!detail_.empty()) what_ += " (" + detail_ + ")";
}

std::string errnoName(int errnoNumber) {
  const char* name = ::strerrorname_np(errnoNumber);
  return name != nullptr ? name : "E" + std::to_string(errnoNumber);
}

void throwIoctl(const char* request, int errnoNumber, std::string detail) {
  throw Failure(FailureKind::kIoctl, request, errnoNumber, std::move(detail));
}

void throwSyscall(const char* name, int errnoNumber, std::string detail) {
  throw Failure(FailureKind::kSyscall, name, errnoNumber, std::move(detail));
}

void throwClosed(const char* what) {
  throw Failure(FailureKind::kClosed, what, EBADF);
}

void throwRange(std::string message) {
  throw BadArgument(BadArgument::Kind::kRange, std::move(message));
}

void throwType(std::string message) {
  throw BadArgument(BadArgument::Kind::kType, std::move(message));
}

int ioctlRetry(int fd, unsigned long request, unsigned long argument) {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

int ioctlChecked(int fd, unsigned long request, unsigned long argument, const char* name, const std::string& detail) {
  const int result = ioctlRetry(fd, request, argument);
  if (result < 0) throwIoctl(name, errno, detail);
  return result;
}

}  // namespace vivarium

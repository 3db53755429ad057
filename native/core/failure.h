// A call that the kernel, or the state of an object, refused: thrown in native code, turned into a JavaScript error by
// the error factory at the border (bindings/environment). Carries the names of linux/kvm.h, never a stack or a pointer.
#pragma once

#include <exception>
#include <string>

namespace vivarium {

enum class FailureKind { kIoctl, kSyscall, kClosed, kState, kCapability };

class Failure : public std::exception {
 public:
  Failure(FailureKind kind, std::string name, int errnoNumber, std::string detail = {});

  FailureKind kind() const { return kind_; }
  const std::string& name() const { return name_; }
  int errnoNumber() const { return errnoNumber_; }
  const std::string& detail() const { return detail_; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  FailureKind kind_;
  std::string name_;
  int errnoNumber_;
  std::string detail_;
  std::string what_;
};

// The caller's mistake: becomes a TypeError or a RangeError.
class BadArgument : public std::exception {
 public:
  enum class Kind { kType, kRange };
  BadArgument(Kind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  Kind kind() const { return kind_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Kind kind_;
  std::string message_;
};

// 'EINVAL' for 22; 'E<number>' for one that the C library does not know.
std::string errnoName(int errnoNumber);

[[noreturn]] void throwIoctl(const char* request, int errnoNumber, std::string detail = {});
[[noreturn]] void throwSyscall(const char* name, int errnoNumber, std::string detail = {});
[[noreturn]] void throwClosed(const char* what);
[[noreturn]] void throwRange(std::string message);
[[noreturn]] void throwType(std::string message);

// ioctl() that is issued again on EINTR, since no caller of ours can do anything else about it. Not for KVM_RUN.
int ioctlRetry(int fd, unsigned long request, unsigned long argument);
inline int ioctlRetry(int fd, unsigned long request, void* argument) {
  return ioctlRetry(fd, request, reinterpret_cast<unsigned long>(argument));
}

// The same, where any failure is thrown under the request's name.
int ioctlChecked(int fd, unsigned long request, unsigned long argument, const char* name,
                 const std::string& detail = {});
inline int ioctlChecked(int fd, unsigned long request, void* argument, const char* name,
                        const std::string& detail = {}) {
  return ioctlChecked(fd, request, reinterpret_cast<unsigned long>(argument), name, detail);
}

}  // namespace vivarium

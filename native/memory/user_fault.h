// A userfaultfd: the kernel's way to let this process serve its own page faults. One class for the descriptor and its
// ioctls, without a policy; the constants that headers before Linux 6.4 and 6.6 lack stand in the source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/fd.h"

namespace vivarium {

// What this kernel offers to this user: `step` names what failed, with its errno; null when it can be had.
struct UserFaultSupport {
  const char* step = nullptr;
  int errnoNumber = 0;
  uint64_t features = 0;  // UFFD_FEATURE_*, linux/userfaultfd.h
};

class UserFault {
 public:
  // UFFD_FEATURE_* of linux/userfaultfd.h, each with the kernel it came with.
  static constexpr uint64_t kMissingShmem = 1 << 5;    // 4.11
  static constexpr uint64_t kWriteProtect = 1 << 0;    // 5.7, anonymous memory
  static constexpr uint64_t kWpShmem = 1 << 12;        // 5.19
  static constexpr uint64_t kWpUnpopulated = 1 << 13;  // 6.4
  static constexpr uint64_t kPoison = 1 << 14;         // 6.6
  static constexpr uint64_t kMinorShmem = 1 << 10;     // 5.14
  static constexpr uint64_t kMove = 1 << 16;           // 6.8

  struct Fault {
    uint64_t address;
    bool missing;  // else a write to a protected page
    bool minor;    // of the missing: it is in the file that is mapped
  };

  // Which faults of a mapping are served.
  struct Watch {
    bool missing = false;
    bool minor = false;  // of pages that are in the file and not in the page tables
    bool writes = false;
  };

  static UserFaultSupport probe();
  // Opens one with those of the features that the kernel has. Throws Failure kSyscall.
  UserFault();
  uint64_t features() const { return features_; }
  int fd() const { return fd_.get(); }

  // Adds to what is watched before. Throws Failure kSyscall.
  void watch(const uint8_t* start, size_t bytes, Watch what) const;

  // All of these give 0 or an errno; ranges are whole pages of what is watched.
  // Ends all protection and lets all who wait look again.
  int unwatch(const uint8_t* start, size_t bytes) const;
  int protect(const uint8_t* start, size_t bytes) const;
  int unprotect(const uint8_t* start, size_t bytes) const;
  // Puts pages in where there are none, and lets who waits for them go. Pages that are there already stay as they are.
  int copy(uint8_t* to, const uint8_t* from, size_t bytes, bool protectedCopy) const;
  int zero(uint8_t* to, size_t bytes) const;
  // The same with the pages that the mapped file has there.
  int proceed(uint8_t* to, size_t bytes, bool protectedPages) const;
  // The same with the pages themselves, which are gone from where they were: anonymous memory alone, in 2 MiB where
  // both are aligned. What was not moved when it fails is still there.
  int move(uint8_t* to, uint8_t* from, size_t bytes) const;
  int poison(uint8_t* to, size_t bytes) const;
  int wake(const uint8_t* start, size_t bytes) const;

  // What waits, without waiting: the faults that were written into `into`.
  size_t read(std::span<Fault> into) const;

 private:
  Fd fd_;
  uint64_t features_ = 0;
};

}  // namespace vivarium

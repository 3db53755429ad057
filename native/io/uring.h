// An io_uring by its system calls (io_uring_setup(2), linux/io_uring.h): the rings and their ordering, nothing of what
// the requests mean. One thread fills and reaps it.
#pragma once

#include <linux/io_uring.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "core/fd.h"
#include "core/mapping.h"

namespace vivarium {

class Uring {
 public:
  // Makes rings that can do these operations and nothing else (IORING_REGISTER_RESTRICTIONS, Linux 5.10), for a process
  // that is about to give up making any: those that are made later are these. Where the kernel refuses, there are
  // fewer.
  static void keepInReserve(uint32_t count, uint32_t entries, std::span<const uint8_t> operations);

  // Throws Failure kSyscall where the kernel offers none, or one without the operations that are needed.
  Uring(const CountersPtr& counters, uint32_t entries, std::span<const uint8_t> operations);

  int fd() const { return fd_.get(); }
  // From now on completions signal the eventfd, unless they are muted.
  void signalTo(int eventFd);
  // Completions signal nobody: for a thread that is about to look itself. It must look once more after unmuting.
  void mute(bool muted);
  // The next free entry, zeroed, or null when all are filled.
  io_uring_sqe* next();
  // Entries filled and not yet taken by the kernel.
  uint32_t filled() const { return filled_; }
  // Hands the filled entries over; 0, or the errno (never EINTR) with the rest still filled.
  int submit();
  // Lets the kernel post what has completed and waits for nothing.
  void runCompletions();
  // Takes the last filled entry back.
  const io_uring_sqe* takeBack();
  // The oldest completion, or false.
  bool reap(uint64_t* userData, int32_t* result);

 private:
  static int setUp(uint32_t entries, uint32_t flags, io_uring_params* parameters);
  void map(const CountersPtr& counters, const io_uring_params& parameters);
  void probe(std::span<const uint8_t> operations);

  Fd fd_;
  std::unique_ptr<Mapping> rings_;
  std::unique_ptr<Mapping> entries_;
  io_uring_sqe* sqes_ = nullptr;
  std::atomic<uint32_t>* sqHead_ = nullptr;
  std::atomic<uint32_t>* sqTail_ = nullptr;
  uint32_t sqMask_ = 0;
  uint32_t sqCount_ = 0;
  std::atomic<uint32_t>* cqHead_ = nullptr;
  std::atomic<uint32_t>* cqTail_ = nullptr;
  std::atomic<uint32_t>* cqFlags_ = nullptr;  // null before Linux 5.8
  uint32_t cqMask_ = 0;
  const io_uring_cqe* cqes_ = nullptr;
  uint32_t filled_ = 0;
};

}  // namespace vivarium

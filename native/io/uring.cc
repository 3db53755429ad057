// The rings are shared with the kernel: tails are published with release and read with acquire (io_uring(7)).
#include "io/uring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/failure.h"

namespace vivarium {
namespace {

// The kernel takes the iovecs when a request is submitted, loses no completion, and has both rings in one mapping.
constexpr uint32_t kFeatures = IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP | IORING_FEAT_SINGLE_MMAP;

struct Reserved {
  Fd fd;
  uint32_t entries;
  io_uring_params parameters;
};

// Of the process: whichever environment comes first has them.
struct Reserve {
  std::mutex mutex;
  std::vector<Reserved> rings;
};

Reserve& reserve() {
  static Reserve own;
  return own;
}

bool takeReserved(uint32_t entries, Fd* fd, io_uring_params* parameters) {
  const std::lock_guard lock(reserve().mutex);
  auto& rings = reserve().rings;
  if (rings.empty() || rings.back().entries != entries) return false;
  *fd = std::move(rings.back().fd);
  *parameters = rings.back().parameters;
  rings.pop_back();
  return true;
}

// What the ring may be asked for from when it is enabled: these operations without any of their flags, and what
// probe() and signalTo() register.
bool restrict(int fd, std::span<const uint8_t> operations) {
  std::vector<io_uring_restriction> allowed(operations.size() + 2);
  for (size_t index = 0; index < operations.size(); index++) {
    allowed[index].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[index].sqe_op = operations[index];
  }
  const uint8_t registered[] = {IORING_REGISTER_PROBE, IORING_REGISTER_EVENTFD};
  for (size_t index = 0; index < 2; index++) {
    io_uring_restriction& row = allowed[operations.size() + index];
    row.opcode = IORING_RESTRICTION_REGISTER_OP;
    row.register_op = registered[index];
  }
  return ::syscall(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, allowed.data(), allowed.size()) == 0 &&
         ::syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) == 0;
}

std::unique_ptr<Mapping> mapRing(const CountersPtr& counters, int fd, size_t sizeBytes, uint64_t offset) {
  void* address =
      ::mmap(nullptr, sizeBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) throwSyscall("mmap", errno, "io_uring");
  ::madvise(address, sizeBytes, MADV_DONTFORK);
  return std::make_unique<Mapping>(counters, address, sizeBytes);
}

}  // namespace

int Uring::setUp(uint32_t entries, uint32_t flags, io_uring_params* parameters) {
  // Completions need not interrupt this thread: it sees them at its next system call (Linux 5.19).
  for (const uint32_t more : {uint32_t{IORING_SETUP_COOP_TASKRUN}, 0u}) {
    std::memset(parameters, 0, sizeof *parameters);
    parameters->flags = flags | more;
    const long fd = ::syscall(SYS_io_uring_setup, entries, parameters);
    if (fd >= 0 || errno != EINVAL) return static_cast<int>(fd);
  }
  return -1;
}

void Uring::keepInReserve(uint32_t count, uint32_t entries, std::span<const uint8_t> operations) {
  const std::lock_guard lock(reserve().mutex);
  while (reserve().rings.size() < count) {
    Reserved made{Fd(), entries, {}};
    made.fd = Fd(setUp(entries, IORING_SETUP_R_DISABLED, &made.parameters));
    if (!made.fd.valid() || !restrict(made.fd.get(), operations)) return;
    reserve().rings.push_back(std::move(made));
  }
}

Uring::Uring(const CountersPtr& counters, uint32_t entries, std::span<const uint8_t> operations) {
  io_uring_params parameters;
  if (!takeReserved(entries, &fd_, &parameters)) {
    const int fd = setUp(entries, 0, &parameters);
    if (fd < 0) throwSyscall("io_uring_setup", errno);
    fd_ = Fd(fd);
  }
  if ((parameters.features & kFeatures) != kFeatures) throwSyscall("io_uring_setup", EOPNOTSUPP, "before Linux 5.5");
  probe(operations);
  map(counters, parameters);
}

void Uring::probe(std::span<const uint8_t> operations) {
  constexpr uint32_t kOperations = 256;
  alignas(io_uring_probe) uint8_t bytes[sizeof(io_uring_probe) + kOperations * sizeof(io_uring_probe_op)] = {};
  auto* known = reinterpret_cast<io_uring_probe*>(bytes);
  if (::syscall(SYS_io_uring_register, fd_.get(), IORING_REGISTER_PROBE, known, kOperations) < 0) {
    throwSyscall("io_uring_register", errno, "IORING_REGISTER_PROBE");
  }
  const auto* rows = reinterpret_cast<const io_uring_probe_op*>(bytes + sizeof(io_uring_probe));
  for (const uint8_t operation : operations) {
    if (operation >= known->ops_len || (rows[operation].flags & IO_URING_OP_SUPPORTED) == 0) {
      throwSyscall("io_uring_register", EOPNOTSUPP, "operation " + std::to_string(operation));
    }
  }
}

void Uring::map(const CountersPtr& counters, const io_uring_params& parameters) {
  const size_t sqBytes = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
  const size_t cqBytes = parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe);
  rings_ = mapRing(counters, fd_.get(), std::max(sqBytes, cqBytes), IORING_OFF_SQ_RING);
  entries_ = mapRing(counters, fd_.get(), parameters.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
  sqes_ = reinterpret_cast<io_uring_sqe*>(entries_->data());

  uint8_t* base = rings_->data();
  const auto word = [base](uint32_t offset) { return reinterpret_cast<std::atomic<uint32_t>*>(base + offset); };
  sqHead_ = word(parameters.sq_off.head);
  sqTail_ = word(parameters.sq_off.tail);
  sqMask_ = word(parameters.sq_off.ring_mask)->load(std::memory_order_relaxed);
  sqCount_ = parameters.sq_entries;
  cqHead_ = word(parameters.cq_off.head);
  cqTail_ = word(parameters.cq_off.tail);
  cqMask_ = word(parameters.cq_off.ring_mask)->load(std::memory_order_relaxed);
  cqFlags_ = parameters.cq_off.flags != 0 ? word(parameters.cq_off.flags) : nullptr;
  cqes_ = reinterpret_cast<const io_uring_cqe*>(base + parameters.cq_off.cqes);
  // Entry n of the ring is always entry n of the array.
  auto* array = reinterpret_cast<uint32_t*>(base + parameters.sq_off.array);
  for (uint32_t index = 0; index < parameters.sq_entries; index++) array[index] = index;
}

void Uring::signalTo(int eventFd) {
  if (::syscall(SYS_io_uring_register, fd_.get(), IORING_REGISTER_EVENTFD, &eventFd, 1) < 0) {
    throwSyscall("io_uring_register", errno, "IORING_REGISTER_EVENTFD");
  }
}

void Uring::mute(bool muted) {
  if (cqFlags_ == nullptr) return;
  // The kernel posts first and reads the flag then; whoever unmutes writes the flag first and looks then.
  cqFlags_->store(muted ? IORING_CQ_EVENTFD_DISABLED : 0, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

io_uring_sqe* Uring::next() {
  const uint32_t tail = sqTail_->load(std::memory_order_relaxed);
  if (tail - sqHead_->load(std::memory_order_acquire) >= sqCount_) return nullptr;
  io_uring_sqe* entry = &sqes_[tail & sqMask_];
  std::memset(entry, 0, sizeof *entry);
  // Without a polling thread in the kernel nobody reads the tail before submit().
  sqTail_->store(tail + 1, std::memory_order_release);
  filled_++;
  return entry;
}

int Uring::submit() {
  while (filled_ > 0) {
    const long taken = ::syscall(SYS_io_uring_enter, fd_.get(), filled_, 0, 0, nullptr, 0);
    if (taken > 0) {
      filled_ -= static_cast<uint32_t>(taken);
    } else if (taken == 0) {
      return EAGAIN;
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

void Uring::runCompletions() {
  ::syscall(SYS_io_uring_enter, fd_.get(), 0, 0, IORING_ENTER_GETEVENTS, nullptr, 0);
}

const io_uring_sqe* Uring::takeBack() {
  const uint32_t tail = sqTail_->load(std::memory_order_relaxed) - 1;
  sqTail_->store(tail, std::memory_order_release);
  filled_--;
  return &sqes_[tail & sqMask_];
}

bool Uring::reap(uint64_t* userData, int32_t* result) {
  const uint32_t head = cqHead_->load(std::memory_order_relaxed);
  if (head == cqTail_->load(std::memory_order_acquire)) return false;
  const io_uring_cqe& entry = cqes_[head & cqMask_];
  *userData = entry.user_data;
  *result = entry.res;
  cqHead_->store(head + 1, std::memory_order_release);
  return true;
}

}  // namespace vivarium

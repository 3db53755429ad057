// See group_store.h. It is written by pwrite, never through a mapping: so the last seal can be put on it while it is
// mapped by clones. Clones look at a page only when they are told to (UFFDIO_CONTINUE).
#include "memory/group_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/failure.h"

namespace vivarium {

GroupStore::GroupStore(const CountersPtr& counters, const GroupSource& source, uint64_t sizeBytes)
    : sizeBytes_(sizeBytes),
      runs_(runsWithData(source)),
      states_(source.groups(), State::kAbsent),
      counted_(counters, &Counters::groupStores) {
  if ((sizeBytes + kGroupBytes - 1) / kGroupBytes != source.groups()) throwRange("sizeBytes: not that of the source");
  for (const GroupRun& run : runs_) absent_ += run.count;
  status_.groups = absent_;
  fd_ = Fd(::memfd_create("vivarium-clones", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd_.valid()) throwSyscall("memfd_create", errno);
  if (::ftruncate(fd_.get(), static_cast<off_t>(sizeBytes)) < 0) {
    throwSyscall("ftruncate", errno, std::to_string(sizeBytes) + " bytes");
  }
  if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) throwSyscall("fcntl", errno, "F_ADD_SEALS");
}

int GroupStore::write(uint64_t group, const uint8_t* bytes) const {
  uint64_t at = group * kGroupBytes;
  const uint64_t end = std::min(at + kGroupBytes, sizeBytes_);
  while (at < end) {
    const ssize_t written = ::pwrite(fd_.get(), bytes, end - at, static_cast<off_t>(at));
    if (written < 0 && errno != EINTR) return errno;
    if (written <= 0) continue;
    at += static_cast<uint64_t>(written);
    bytes += written;
  }
  return 0;
}

// Under the mutex.
void GroupStore::settle(uint64_t group, State state) {
  states_[group] = state;
  changed_.notify_all();
  if (state == State::kAbsent) return;
  if (state == State::kHeld) status_.held++;
  if (--absent_ > 0) return;
  status_.sealed = ::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0;
}

GroupReadResult GroupStore::bring(uint64_t group, GroupSource& source, uint8_t* scratch) {
  GroupReadResult result;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return states_[group] != State::kComing; });
    if (states_[group] != State::kAbsent) {
      status_.taken++;
      result.kind = states_[group] == State::kZero ? GroupReadResult::Kind::kZero : GroupReadResult::Kind::kData;
      return result;
    }
    states_[group] = State::kComing;
  }
  result = source.read(group, scratch);
  if (result.kind == GroupReadResult::Kind::kData) {
    const int error = write(group, scratch);
    if (error != 0) result = {GroupReadResult::Kind::kSystem, 0, 0, error};
  }
  const std::lock_guard lock(mutex_);
  if (result.failed()) {
    settle(group, State::kAbsent);
  } else {
    settle(group, result.kind == GroupReadResult::Kind::kZero ? State::kZero : State::kHeld);
  }
  return result;
}

GroupStore::Status GroupStore::status() {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace vivarium

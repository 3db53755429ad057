// See memory_groups.h.
#include "snapshot/memory_groups.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace vivarium {

MemoryGroups::MemoryGroups(std::shared_ptr<Mapping> mapping)
    : mapping_(std::move(mapping)), offers_((mapping_->size() + kGroupBytes - 1) / kGroupBytes, 0) {}

bool MemoryGroups::offer(uint64_t group, const uint8_t* bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (bounded_ && room_ == 0) return false;
    if (bounded_) room_--;
    if (group >= offers_.size()) return true;
    offers_[group]++;
  }
  const uint64_t at = group * kGroupBytes;
  std::memcpy(mapping_->data() + at, bytes, std::min<uint64_t>(kGroupBytes, mapping_->size() - at));
  return true;
}

void MemoryGroups::room(uint64_t timeoutNs) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeoutNs), [this] { return !bounded_ || room_ > 0; });
}

GroupReadResult MemoryGroups::read(uint64_t group, uint8_t* into) {
  {
    std::unique_lock lock(mutex_);
    for (Failing& failing : failing_) {
      if (failing.group != group || failing.times == 0) continue;
      failing.times--;
      if (failing.result.failed()) return failing.result;
      changed_.wait(lock, [this] { return !hangs_; });
      break;
    }
  }
  const uint64_t at = group * kGroupBytes;
  const uint64_t bytes = std::min<uint64_t>(kGroupBytes, mapping_->size() - at);
  const uint8_t* const from = mapping_->data() + at;
  GroupReadResult result;
  const bool isZero = from[0] == 0 && std::memcmp(from, from + 1, bytes - 1) == 0;
  if (isZero) {
    result.kind = GroupReadResult::Kind::kZero;
    return result;
  }
  std::memcpy(into, from, bytes);
  std::memset(into + bytes, 0, kGroupBytes - bytes);
  return result;
}

void MemoryGroups::setRoom(uint32_t offers) {
  const std::lock_guard lock(mutex_);
  bounded_ = true;
  room_ = offers;
  changed_.notify_all();
}

void MemoryGroups::failAt(uint64_t group, GroupReadResult::Kind kind, int errnoNumber, uint32_t times) {
  GroupReadResult result;
  result.kind = kind;
  result.fileOffset = group * kGroupBytes;
  result.errnoNumber = errnoNumber;
  const std::lock_guard lock(mutex_);
  failing_.push_back({group, result, times});
}

void MemoryGroups::letGo() {
  const std::lock_guard lock(mutex_);
  hangs_ = false;
  changed_.notify_all();
}

std::vector<uint32_t> MemoryGroups::offers() {
  const std::lock_guard lock(mutex_);
  return offers_;
}

}  // namespace vivarium

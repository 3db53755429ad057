// See write_intercept.h. The walk lets go of 2 MiB at once, aligned, so that huge pages of the host stay whole where
// nobody has written in between; a write lets go of its group alone.
#include "memory/write_intercept.h"

#include <algorithm>
#include <cstring>

#include "core/clock.h"
#include "core/failure.h"

namespace vivarium {

void WriteIntercept::protectAll(const std::vector<bool>& fresh) {
  int error = 0;
  area_.eachRun([&](uint32_t group) { return fresh[group]; },
                [&](uint32_t first, uint32_t count) {
                  stats_.protectedAgain += count;
                  if (error == 0) error = fault_.protect(area_.at(first), area_.bytesOf(first, count));
                });
  if (error != 0) {
    release();
    throwSyscall("UFFDIO_WRITEPROTECT", error);
  }
}

void WriteIntercept::prepare(uint32_t bufferGroups) {
  // With values, so that every page of it is there.
  bytes_.assign(size_t{bufferGroups} * kGroupBytes, 0);
  buffered_.assign(bufferGroups, 0);
  last_.assign(kGroupBytes, 0);
  states_.assign(area_.groups(), State::kOpen);
  head_ = count_ = 0;
  phase_ = Phase::kOff;
  stats_ = {};
}

void WriteIntercept::letBuffersGo() {
  bytes_ = {};
  buffered_ = {};
  last_ = {};
  count_ = 0;
}

void WriteIntercept::arm(std::span<const GroupRun> runs, const Present& present) {
  const uint64_t startNs = monotonicNs();
  phase_ = Phase::kArmed;
  int error = 0;
  for (const GroupRun& run : runs) {
    const uint32_t end = run.first + run.count;
    uint32_t first = run.first;
    for (uint32_t group = run.first; group <= end; group++) {
      // What was written since it was armed is not armed again.
      if (group < end && states_[group] == State::kOpen) {
        states_[group] = State::kArmed;
        if (present(group)) continue;
      }
      if (first < group && error == 0) error = fault_.protect(area_.at(first), area_.bytesOf(first, group - first));
      first = group + 1;
    }
  }
  if (error != 0) {
    release();
    throwSyscall("UFFDIO_WRITEPROTECT", error);
  }
  stats_.armNs += monotonicNs() - startNs;
}

void WriteIntercept::begin(std::span<const GroupRun> runs, std::shared_ptr<GroupSink> sink, const Present& present) {
  const uint64_t startNs = monotonicNs();
  std::vector<bool> wanted(area_.groups(), false);
  stats_.groups = 0;
  for (const GroupRun& run : runs) {
    for (uint32_t group = run.first; group < run.first + run.count; group++) {
      if (!wanted[group]) stats_.groups++;
      wanted[group] = true;
    }
  }
  // Before anything is protected: a fault that comes in between finds its group's state.
  std::vector<bool> fresh(area_.groups(), false);
  for (uint32_t group = 0; group < area_.groups(); group++) {
    const bool isProtected = states_[group] == State::kArmed;
    if (wanted[group]) fresh[group] = !isProtected && present(group);
    states_[group] = wanted[group] ? State::kPending : (isProtected ? State::kSaved : State::kOpen);
  }
  protectAll(fresh);
  stats_.protectNs = monotonicNs() - startNs;
  sink_ = std::move(sink);
  cursor_ = 0;
  phase_ = Phase::kActive;
}

void WriteIntercept::release() {
  if (!states_.empty()) {
    area_.eachRun([this](uint32_t group) { return states_[group] != State::kOpen && states_[group] != State::kLoose; },
                  [this](uint32_t first, uint32_t count) { open(first, count); });
  }
  phase_ = Phase::kOff;
  states_.clear();
  sink_.reset();
  stalled_.clear();
  letBuffersGo();
}

void WriteIntercept::open(uint32_t first, uint32_t count) {
  fault_.unprotect(area_.at(first), area_.bytesOf(first, count));
}

const uint8_t* WriteIntercept::whole(uint32_t group) {
  const size_t bytes = area_.bytesOf(group);
  if (bytes == kGroupBytes) return area_.at(group);
  std::memcpy(last_.data(), area_.at(group), bytes);
  return last_.data();
}

bool WriteIntercept::save(uint32_t group) {
  const uint8_t* bytes = whole(group);
  if (!sink_->offer(group, bytes)) {
    if (count_ == buffered_.size()) return false;
    const uint32_t slot = (head_ + count_) % static_cast<uint32_t>(buffered_.size());
    std::memcpy(bytes_.data() + size_t{slot} * kGroupBytes, bytes, kGroupBytes);
    buffered_[slot] = group;
    count_++;
    stats_.bufferHighWater = std::max<uint64_t>(stats_.bufferHighWater, count_);
  }
  states_[group] = State::kSaved;
  stats_.saved++;
  return true;
}

void WriteIntercept::onFault(uint32_t group, uint64_t atNs) {
  if (states_.empty()) {
    open(group, 1);
    return;
  }
  if (phase_ == Phase::kArmed) {
    stats_.armedFaults++;
    if (states_[group] == State::kArmed) states_[group] = State::kLoose;
    open(group, 1);
    return;
  }
  stats_.faults++;
  if (states_[group] == State::kPending) {
    if (!save(group)) {
      stats_.stalls++;
      stalled_.push_back({group, atNs});
      return;
    }
    stats_.savedByFault++;
  }
  states_[group] = State::kOpen;
  open(group, 1);
  const uint64_t tookNs = monotonicNs() - atNs;
  stats_.faultNs += tookNs;
  stats_.faultMaxNs = std::max(stats_.faultMaxNs, tookNs);
}

bool WriteIntercept::serveStalled() {
  while (!stalled_.empty()) {
    const Stalled waits = stalled_.front();
    // Two vCPUs may have waited for the same group.
    if (states_[waits.group] == State::kPending) {
      if (!save(waits.group)) return false;
      stats_.savedByFault++;
    }
    states_[waits.group] = State::kOpen;
    open(waits.group, 1);
    const uint64_t tookNs = monotonicNs() - waits.sinceNs;
    stats_.stallNs += tookNs;
    stats_.stallMaxNs = std::max(stats_.stallMaxNs, tookNs);
    stalled_.erase(stalled_.begin());
  }
  return true;
}

bool WriteIntercept::drain() {
  if (!sink_->offer(buffered_[head_], bytes_.data() + size_t{head_} * kGroupBytes)) return false;
  head_ = (head_ + 1) % static_cast<uint32_t>(buffered_.size());
  count_--;
  return true;
}

void WriteIntercept::finishBlock() {
  const uint32_t start = cursor_ / kBlockGroups * kBlockGroups;
  const uint32_t end = std::min(start + kBlockGroups, area_.groups());
  uint32_t first = end;
  uint32_t last = start;
  for (uint32_t group = start; group < end; group++) {
    if (states_[group] != State::kSaved) continue;
    states_[group] = State::kOpen;
    first = std::min(first, group);
    last = group + 1;
  }
  if (first < last) open(first, last - first);
}

bool WriteIntercept::next(uint32_t* group) {
  if (phase_ != Phase::kActive) return false;
  while (cursor_ < area_.groups() && states_[cursor_] != State::kPending) {
    if ((cursor_ + 1) % kBlockGroups == 0 || cursor_ + 1 == area_.groups()) finishBlock();
    cursor_++;
  }
  *group = cursor_;
  return cursor_ < area_.groups();
}

WriteIntercept::Step WriteIntercept::step() {
  if (phase_ != Phase::kActive) return Step::kEnd;
  if (!stalled_.empty()) {
    if (serveStalled()) return Step::kMore;
    // No room in either: the buffer's oldest may go first.
    return count_ > 0 && drain() ? Step::kMore : Step::kNoRoom;
  }
  if (count_ > 0) return drain() ? Step::kMore : Step::kNoRoom;
  uint32_t group;
  if (next(&group)) {
    // Past the buffer, which is for writes that wait.
    if (!sink_->offer(group, whole(group))) return Step::kNoRoom;
    states_[group] = State::kSaved;
    stats_.saved++;
    next(&group);
    return Step::kMore;
  }
  phase_ = Phase::kDone;
  sink_.reset();
  letBuffersGo();
  return Step::kEnd;
}

}  // namespace vivarium

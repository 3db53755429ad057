// See extent_book.h.
#include "snapshot/extent_book.h"

#include <algorithm>

namespace vivarium {

ExtentBook::ExtentBook(uint64_t groups) : extentOf_(groups, kUnwritten) {}

std::optional<ExtentBook::Id> ExtentBook::find(uint32_t contentCrc) {
  const auto found = byContent_.find(contentCrc);
  if (found == byContent_.end()) return std::nullopt;
  extents_[found->second].users++;
  return found->second;
}

void ExtentBook::unlist(Id id) {
  Extent& extent = extents_[id];
  if (!extent.listed) return;
  extent.listed = false;
  byContent_.erase(extent.contentCrc);
}

void ExtentBook::leave(Id id) {
  Extent& extent = extents_[id];
  if (--extent.users > 0) return;
  unlist(id);
  // A smaller one is a gap from now on.
  if (extent.capacityBytes >= kGroupBytes) free_.push_back(id);
}

void ExtentBook::drop(uint64_t group) {
  const Id id = extentOf_[group];
  extentOf_[group] = kUnwritten;
  if (id < kZeroGroup) leave(id);
}

void ExtentBook::alias(uint64_t group, Id id) {
  drop(group);
  extentOf_[group] = id;
}

void ExtentBook::zero(uint64_t group) {
  drop(group);
  extentOf_[group] = kZeroGroup;
}

ExtentBook::Id ExtentBook::place(uint64_t group, uint32_t storedBytes, GroupCodec codec, uint32_t storedCrc,
                                 uint32_t contentCrc) {
  const Id before = extentOf_[group];
  const bool first = before == kUnwritten;
  Id id;
  if (before < kZeroGroup && extents_[before].users == 1 && extents_[before].capacityBytes >= storedBytes) {
    id = before;
    unlist(id);
  } else {
    drop(group);
    if (!free_.empty()) {
      id = free_.back();
      free_.pop_back();
    } else {
      id = static_cast<Id>(extents_.size());
      extents_.emplace_back();
      extents_[id].offset = end_;
      extents_[id].capacityBytes = first ? storedBytes : static_cast<uint32_t>(kGroupBytes);
      end_ += extents_[id].capacityBytes;
    }
    extents_[id].users = 1;
    extentOf_[group] = id;
  }
  Extent& extent = extents_[id];
  extent.storedBytes = storedBytes;
  extent.storedCrc = storedCrc;
  extent.contentCrc = contentCrc;
  extent.codec = codec;
  return id;
}

void ExtentBook::settle(Id id) {
  Extent& extent = extents_[id];
  extent.listed = byContent_.try_emplace(extent.contentCrc, id).second;
}

std::vector<GroupRow> ExtentBook::rows() const {
  std::vector<GroupRow> rows(extentOf_.size());
  std::vector<uint64_t> owner(extents_.size(), UINT64_MAX);
  for (uint64_t group = 0; group < rows.size(); group++) {
    GroupRow& row = rows[group];
    const Id id = extentOf_[group];
    if (id == kUnwritten) continue;
    if (id == kZeroGroup) {
      row.codec = GroupCodec::kZero;
      row.contentCrc = zeroGroupCrc();
      continue;
    }
    const Extent& extent = extents_[id];
    row.contentCrc = extent.contentCrc;
    if (owner[id] != UINT64_MAX) {
      row.codec = GroupCodec::kSame;
      row.offset = owner[id];
      continue;
    }
    owner[id] = group;
    row.offset = extent.offset;
    row.storedBytes = extent.storedBytes;
    row.storedCrc = extent.storedCrc;
    row.codec = extent.codec;
  }
  return rows;
}

std::vector<std::pair<uint64_t, uint64_t>> ExtentBook::gaps() {
  std::vector<std::pair<uint64_t, uint64_t>> used;
  for (const Extent& extent : extents_) {
    if (extent.users > 0) used.emplace_back(extent.offset, extent.storedBytes);
  }
  std::sort(used.begin(), used.end());
  std::vector<std::pair<uint64_t, uint64_t>> gaps;
  uint64_t at = 0;
  for (const auto& [offset, length] : used) {
    if (offset > at) gaps.emplace_back(at, offset - at);
    at = offset + length;
  }
  end_ = at;
  return gaps;
}

}  // namespace vivarium

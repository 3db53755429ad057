// Which group stands where in a snapshot's memory file while it is written: extents with the groups that share them,
// the room that is free again, and the contents by checksum for finding duplicates. Bookkeeping alone; its user holds
// the lock.
//
// A group that is written again takes its own extent when nobody shares it and the bytes fit. Otherwise it gets one
// with room for a whole raw group, out of those that are free first: so the file never grows beyond twice the memory.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "snapshot/group_row.h"

namespace vivarium {

class ExtentBook {
 public:
  using Id = uint32_t;
  struct Extent {
    uint64_t offset = 0;
    uint32_t capacityBytes = 0;
    uint32_t storedBytes = 0;
    uint32_t storedCrc = 0;
    uint32_t contentCrc = 0;
    uint32_t users = 0;  // groups, and threads that compare with it
    GroupCodec codec = GroupCodec::kNone;
    bool listed = false;  // found by its checksum
  };

  explicit ExtentBook(uint64_t groups);

  uint64_t groups() const { return extentOf_.size(); }
  // An extent whose content has this checksum, with one user more: alias() or leave() ends that.
  std::optional<Id> find(uint32_t contentCrc);
  const Extent& at(Id id) const { return extents_[id]; }
  void leave(Id id);
  // The group is as the extent that find() gave.
  void alias(uint64_t group, Id id);
  void zero(uint64_t group);
  // Where the group's bytes are to be written. Nobody finds them before settle().
  Id place(uint64_t group, uint32_t storedBytes, GroupCodec codec, uint32_t storedCrc, uint32_t contentCrc);
  void settle(Id id);
  // The file up to here is in use.
  uint64_t endOffset() const { return end_; }
  // The rows of all groups; duplicates name the first group that has their extent. kNone for a group never written.
  std::vector<GroupRow> rows() const;
  // What no row covers up to endOffset(): {offset, length}, ascending. It shortens the file to the last extent in use.
  std::vector<std::pair<uint64_t, uint64_t>> gaps();

 private:
  static constexpr Id kUnwritten = UINT32_MAX;
  static constexpr Id kZeroGroup = UINT32_MAX - 1;

  void drop(uint64_t group);
  void unlist(Id id);

  std::vector<Id> extentOf_;
  std::vector<Extent> extents_;
  std::vector<Id> free_;  // with room for a whole group
  std::unordered_map<uint32_t, Id> byContent_;
  uint64_t end_ = 0;
};

}  // namespace vivarium

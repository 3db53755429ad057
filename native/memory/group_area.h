// The mapping of guest memory as groups (snapshot/group_sink.h), and runs of groups one behind the other. The last
// group may be shorter than the others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "core/mapping.h"
#include "snapshot/group_sink.h"

namespace vivarium {

class GroupArea {
 public:
  explicit GroupArea(std::shared_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}

  uint32_t groups() const { return static_cast<uint32_t>((mapping_->size() + kGroupBytes - 1) / kGroupBytes); }
  uint8_t* start() const { return mapping_->data(); }
  size_t bytes() const { return mapping_->size(); }
  uint8_t* at(uint32_t group) const { return mapping_->data() + uint64_t{group} * kGroupBytes; }
  // Bytes of `count` groups from the first.
  size_t bytesOf(uint32_t first, uint32_t count = 1) const {
    return static_cast<size_t>(
        std::min<uint64_t>(mapping_->size() - uint64_t{first} * kGroupBytes, uint64_t{count} * kGroupBytes));
  }
  uint32_t groupOf(uint64_t address) const {
    return static_cast<uint32_t>((address - reinterpret_cast<uint64_t>(mapping_->data())) / kGroupBytes);
  }

  // Calls `visit(first, count)` for each run of groups that `in(group)` holds for.
  template <typename In, typename Visit>
  void eachRun(In in, Visit visit) const {
    const uint32_t end = groups();
    for (uint32_t first = 0; first < end;) {
      if (!in(first)) {
        first++;
        continue;
      }
      uint32_t last = first + 1;
      while (last < end && in(last)) last++;
      visit(first, last - first);
      first = last;
    }
  }

 private:
  std::shared_ptr<Mapping> mapping_;
};

}  // namespace vivarium

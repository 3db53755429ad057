// Groups kept in a mapping instead of a file: a sink that collects what a write intercept hands over, and a source that
// a pager can be served from. It can be made to have no room, to fail and to hang, so that what stands on the two
// borders is tested without a file.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/mapping.h"
#include "snapshot/group_sink.h"
#include "snapshot/group_source.h"

namespace vivarium {

class MemoryGroups : public GroupSink, public GroupSource {
 public:
  explicit MemoryGroups(std::shared_ptr<Mapping> mapping);

  // Any thread, all of these.
  bool offer(uint64_t group, const uint8_t* bytes) override;
  void room(uint64_t timeoutNs) override;
  uint64_t groups() const override { return offers_.size(); }
  GroupReadResult read(uint64_t group, uint8_t* into) override;

  // How many further offers there is room for; without a call there is no end.
  void setRoom(uint32_t offers);
  // The next `times` reads of the group end so; of kData: they hang until letGo().
  void failAt(uint64_t group, GroupReadResult::Kind kind, int errnoNumber, uint32_t times);
  void letGo();
  // How often each group was offered.
  std::vector<uint32_t> offers();

 private:
  struct Failing {
    uint64_t group;
    GroupReadResult result;
    uint32_t times;
  };

  std::shared_ptr<Mapping> mapping_;
  std::mutex mutex_;  // everything below
  std::condition_variable changed_;
  std::vector<uint32_t> offers_;
  std::vector<Failing> failing_;
  bool bounded_ = false;
  uint32_t room_ = 0;
  bool hangs_ = true;
};

}  // namespace vivarium

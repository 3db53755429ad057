// The write intercept: guest memory is handed over as it was at one instant, while the guest goes on. What is wanted is
// write-protected at the instant; a write to a group that is not saved yet waits until the group has been copied.
//
//            arm()              begin()                  saved              2 MiB done, or a write to it
//   OPEN ----------> ARMED ----------------> PENDING ------------> SAVED ------------------------------> OPEN
//     |    a write to |  LOOSE  protected ^     ^
//     |               +---> ----------------+   |     (without arm() begin() protects all that is wanted)
//     +-----------------------------------------+
//
// It stands on the pager (pager.h), whose mutex is held over every call, and whose thread makes those that say so. It
// never waits for JavaScript, and for the sink only where the copy buffer is full.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "memory/group_area.h"
#include "memory/group_blocks.h"
#include "memory/user_fault.h"
#include "snapshot/group_sink.h"

namespace vivarium {

struct InterceptStats {
  uint64_t groups = 0;           // wanted
  uint64_t saved = 0;            // handed over, or in the copy buffer
  uint64_t savedByFault = 0;     // of those, because of a write
  uint64_t faults = 0;           // writes that met protection since begin()
  uint64_t armedFaults = 0;      // and before it
  uint64_t protectedAgain = 0;   // groups that begin() had to protect
  uint64_t bufferHighWater = 0;  // groups in the copy buffer at once, at most
  uint64_t stalls = 0;           // faults that found it full
  uint64_t stallNs = 0;
  uint64_t stallMaxNs = 0;
  uint64_t faultMaxNs = 0;  // from the fault's arrival to its release, without stalls
  uint64_t faultNs = 0;
  uint64_t armNs = 0;
  uint64_t protectNs = 0;  // of begin()
};

class WriteIntercept {
 public:
  enum class Phase : uint8_t { kOff, kArmed, kActive, kDone };
  using Present = std::function<bool(uint32_t group)>;

  WriteIntercept(const GroupArea& area, const UserFault& fault) : area_(area), fault_(fault) {}

  Phase phase() const { return phase_; }
  const InterceptStats& stats() const { return stats_; }

  // JavaScript, before the vCPUs stop: what takes time. Wanted before arm() and begin(), each time.
  void prepare(uint32_t bufferGroups);
  bool prepared() const { return !last_.empty(); }
  // JavaScript. Groups that are not present stay as they are: whoever puts them in asks wanted(). Throws Failure
  // kSyscall; nothing is protected then. arm() adds to what was armed before.
  void arm(std::span<const GroupRun> runs, const Present& present);
  void begin(std::span<const GroupRun> runs, std::shared_ptr<GroupSink> sink, const Present& present);
  // Ends all protection; what was not handed over is not.
  void release();

  // Any thread: whether the group has to be put in write-protected.
  bool wanted(uint32_t group) const {
    return phase_ != Phase::kOff && (states_[group] == State::kPending || states_[group] == State::kArmed);
  }

  // The pager's thread.
  void onFault(uint32_t group, uint64_t atNs);
  // The group that the walk comes to next; false when it is at its end.
  bool next(uint32_t* group);
  enum class Step : uint8_t { kMore, kNoRoom, kEnd };
  // Serves writes that wait for the buffer, drains it, or saves the group that next() gave.
  Step step();
  const std::shared_ptr<GroupSink>& sink() const { return sink_; }
  // Whether writes wait for room in the sink, so that waiting for it delays nobody.
  bool stalled() const { return !stalled_.empty(); }
  // Whether step() has something to do before the walk.
  bool owes() const { return stalled() || count_ > 0; }

 private:
  enum class State : uint8_t { kOpen, kArmed, kLoose, kPending, kSaved };
  struct Stalled {
    uint32_t group;
    uint64_t sinceNs;
  };

  void protectAll(const std::vector<bool>& fresh);
  bool save(uint32_t group);
  bool serveStalled();
  bool drain();
  void finishBlock();
  void open(uint32_t first, uint32_t count);
  const uint8_t* whole(uint32_t group);
  void letBuffersGo();

  GroupArea area_;
  const UserFault& fault_;
  Phase phase_ = Phase::kOff;
  std::vector<State> states_;
  std::shared_ptr<GroupSink> sink_;
  InterceptStats stats_;
  uint32_t cursor_ = 0;

  // The copy buffer: a ring of groups that the sink had no room for.
  std::vector<uint8_t> bytes_;
  std::vector<uint32_t> buffered_;
  uint32_t head_ = 0;
  uint32_t count_ = 0;
  std::vector<Stalled> stalled_;
  std::vector<uint8_t> last_;  // room for the last group with zeros behind it
};

}  // namespace vivarium

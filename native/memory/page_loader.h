// Guest memory that is still in a snapshot: each group is read once, by whoever needs it first, checked, and put in
// whole. The pager's thread loads what is touched or asked for; a thread of its own fills in the rest, hot groups
// first, and makes way while somebody waits for a fault. Where the kernel can move pages it fills in whole blocks of
// which nothing is there yet, so that they become huge pages. In memory of a clone (group_store.h) nothing is copied: a
// group is put in by mapping the store's pages.
//
//   MISSING ---claim---> LOADING ---read, put in---> FAULTED | FILLED | ASKED (who was first)
//                           |
//                           +---failed: the whole machine is (pager.h)---> FAILED
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/counters.h"
#include "memory/group_area.h"
#include "memory/group_store.h"
#include "memory/user_fault.h"
#include "memory/write_intercept.h"
#include "snapshot/group_source.h"

namespace vivarium {

// One byte for each group, shared with JavaScript; GroupState of lib/kvm/native-pager.ts.
enum class GroupState : uint8_t { kMissing, kLoading, kFaulted, kFilled, kAsked, kFailed };

struct LoadFailure {
  enum class Why : uint8_t { kNone, kShortRead, kChecksum, kDecompress, kSystem, kTimeout, kInstall, kClosed };
  Why why = Why::kNone;
  uint32_t group = 0;
  uint32_t file = 0;
  uint64_t fileOffset = 0;
  int errnoNumber = 0;
};

// What the pager and its loader share. The mutex is held over every change of what is mapped or protected, so that a
// group never gets in unprotected while an intercept wants it.
struct PagerCore {
  explicit PagerCore(std::shared_ptr<Mapping> mapping) : area(std::move(mapping)), intercept(area, fault) {}
  GroupArea area;
  UserFault fault;
  std::mutex mutex;
  WriteIntercept intercept;
  bool failed = false;
};

struct LoadStats {
  uint64_t missing = 0;
  uint64_t hotMissing = 0;
  uint64_t faults = 0;  // that met a missing page
  uint64_t retries = 0;
  uint64_t faultMaxNs = 0;
  uint64_t faultNs = 0;
};

class PageLoader {
 public:
  struct Events {
    std::function<void()> progress;  // the hot groups, or all, are there
    std::function<void(const LoadFailure&)> failed;
  };

  // `order`: the hot groups, then any others; what it leaves out follows by address. What is not kMissing in `states`
  // is there already. `store`: null unless the memory is mapped from it. `canMove`: it is anonymous.
  struct Parts {
    CountersPtr counters;
    std::shared_ptr<GroupSource> source;
    std::shared_ptr<GroupStore> store;
    std::shared_ptr<Mapping> states;
    std::vector<uint32_t> order;
    uint32_t hotCount = 0;
    bool canMove = false;
    Events events;
  };
  PageLoader(PagerCore& core, Parts parts);
  ~PageLoader();

  GroupState state(uint32_t group) const;
  bool present(uint32_t group) const;
  bool complete() const { return missing_.load(std::memory_order_acquire) == 0; }
  LoadStats stats() const;

  // The pager's thread: loads it now, unless it is there or another thread has it in hand.
  void load(uint32_t group, GroupState as);
  // Under the core's mutex: a page of the store that was put in has gone from the page tables again, by reclaim.
  void again(uint32_t group);
  void onFaults(uint32_t waiting);
  void tookNs(uint64_t ns);
  // JavaScript: waits until it is there; false when the machine has failed, or at the moment (CLOCK_MONOTONIC).
  bool waitFor(uint32_t group, uint64_t deadlineNs);

  void startFilling(std::shared_ptr<void> owner);
  // A read that has been under way since before `sinceNs`, with its group.
  bool stuckSince(uint64_t sinceNs, uint32_t* group) const;
  // Under the core's mutex, after `failed` was set: lets go who waits, with poison where the kernel has it.
  void poisonMissing();
  // The same where no vCPU runs any more: what is missing can't be touched at all. It costs nothing for what is large.
  void shutMissing();
  // Wakes who waits for a group; it finds `failed`.
  void tellWaiters();
  // Asks the filling thread to end; ended() joins it, or leaves it to itself when it is stuck in a read.
  void stop();
  void ended(uint64_t withinNs);

 private:
  // What one loading thread has in hand.
  struct Hand {
    std::atomic<uint64_t> startedNs{0};
    std::atomic<uint32_t> group{0};
    std::vector<uint8_t> bytes = std::vector<uint8_t>(kGroupBytes);
  };

  bool claim(uint32_t group);
  void loadClaimed(Hand& hand, uint32_t group, GroupState as);
  void install(uint32_t group, const uint8_t* bytes, bool isZero, GroupState as);
  // Into `bytes`, but for what goes into the store. False when it has failed, which is the caller's to tell.
  bool read(Hand& hand, uint32_t group, uint8_t* bytes, bool* isZero, LoadFailure* failure);
  int putIn(uint32_t group, const uint8_t* bytes, bool isZero);
  // Under the core's mutex; whether somebody has to be told.
  bool settle(uint32_t group, GroupState as);
  void makeWay();
  void fill();
  bool fillBlock(uint32_t group);
  void fillSingly(uint32_t first, uint32_t end);
  int putInBlock(uint32_t first);
  void markFailed();
  uint8_t* atBlock(uint32_t group) const { return block_->data() + uint64_t{group % kBlockGroups} * kGroupBytes; }

  CountersPtr counters_;
  PagerCore& core_;
  std::shared_ptr<GroupSource> source_;
  std::shared_ptr<GroupStore> store_;
  std::shared_ptr<Mapping> states_;
  std::vector<uint32_t> order_;
  std::vector<bool> hot_;
  std::shared_ptr<Mapping> block_;  // the filling thread's, of kBlockBytes; null where pages can't be moved
  Events events_;
  std::atomic<uint32_t> missing_{0};
  std::atomic<uint32_t> hotMissing_{0};
  std::atomic<uint64_t> faults_{0};
  std::atomic<uint64_t> retries_{0};
  std::atomic<uint64_t> faultNs_{0};
  std::atomic<uint64_t> faultMaxNs_{0};
  Hand faultHand_;
  Hand fillHand_;
  std::atomic<uint32_t> waitingFaults_{0};
  static constexpr uint32_t kNone = UINT32_MAX;
  std::atomic<uint32_t> urgent_{kNone};  // a group that somebody waits for and the filling thread has in hand
  std::atomic<bool> ending_{false};
  std::atomic<int> waiters_{0};
  std::condition_variable changed_;  // with the core's mutex
  pthread_t filler_{};
  bool filling_ = false;
};

}  // namespace vivarium

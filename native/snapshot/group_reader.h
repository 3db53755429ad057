// Reads groups of a snapshot out of the files of its chain, by a table that TypeScript has made and checked: one by one
// for the pager (GroupSource, any thread), or many for an eager restore and for verification, on threads of its own.
// Nothing is believed: what is read is checked before it is told to be good, and a frame can't grow beyond its group.
#pragma once

#include <span>

#include "core/fd.h"
#include "core/mapping.h"
#include "snapshot/group_pool.h"
#include "snapshot/group_row.h"
#include "snapshot/group_source.h"

namespace vivarium {

struct GroupReaderProgress {
  bool idle = true;
  uint64_t groupsDone = 0;
  uint64_t bytesRead = 0;
  // The first that failed, if one has.
  GroupReadResult failure;
  uint64_t failedGroup = 0;
};

class GroupReader : public GroupPool, public GroupSource {
 public:
  // Duplicates the descriptors. Each row is zero, raw or zstd and inside of what a file may be: BadArgument otherwise.
  GroupReader(std::shared_ptr<Runtime> runtime, std::span<const uint32_t> fds, std::vector<GroupRow> rows,
              uint32_t threads);
  ~GroupReader() override;

  uint64_t groups() const override { return rows_.size(); }
  bool knownZero(uint64_t group) const override { return rows_[group].codec == GroupCodec::kZero; }
  // A reader that was closed answers kSystem with EBADF.
  GroupReadResult read(uint64_t group, uint8_t* into) override;

  // Reads these groups into `memory`, or, with none, only checks them. With `fresh` memory zero groups are left alone.
  // JavaScript thread; Failure kState while a load is under way, BadArgument.
  void load(std::shared_ptr<Mapping> memory, std::span<const uint32_t> groups, bool fresh);
  // What has not begun is given up. JavaScript thread.
  void cancel();
  GroupReaderProgress progress();
  void close() override;

 private:
  struct Scratch {
    std::unique_ptr<uint8_t[]> stored = std::make_unique<uint8_t[]>(kBatchGroups * kGroupBytes);
    std::unique_ptr<uint8_t[]> group = std::make_unique<uint8_t[]>(kGroupBytes);
    std::vector<iovec> pieces;
  };

  void loop() override;
  bool hasWork() const { return next_ < list_.size(); }
  // The first failure, or one that has not failed.
  GroupReadResult process(Scratch& scratch, std::span<const uint32_t> groups, uint64_t* failedGroup, uint64_t* bytes);
  GroupReadResult loadRun(Scratch& scratch, std::span<const uint32_t> groups, uint64_t* failedGroup, uint64_t* bytes);
  // The rows stand one behind the other in one file.
  bool follows(uint32_t before, uint32_t group) const;
  GroupReadResult failed(const GroupRow& row, GroupReadResult::Kind kind, int errnoNumber = 0) const;
  GroupReadResult unpack(const GroupRow& row, const uint8_t* stored, uint8_t* into) const;
  // Where a whole group of `memory_` is, or null: with no memory, and for a last group that is shorter.
  uint8_t* place(const Mapping* memory, uint64_t group) const;

  std::vector<Fd> fds_;  // until destruction, since a pager may be reading
  const std::vector<GroupRow> rows_;

  // Under mutex_; `memory_` and `fresh_` change only while nothing is under way.
  std::shared_ptr<Mapping> memory_;
  bool fresh_ = false;
  std::vector<uint32_t> list_;
  size_t next_ = 0;
  uint32_t underWay_ = 0;
  GroupReaderProgress progress_;
  uint64_t toldAt_ = 0;
  std::atomic<bool> closed_{false};
  const uint32_t wantedThreads_;
  bool started_ = false;  // JavaScript thread
};

}  // namespace vivarium

// Writes groups of guest memory into a snapshot's memory file: tests for zero, finds duplicates, compresses, checks and
// writes, on threads of its own that never need JavaScript. Groups come out of a list that JavaScript hands over, read
// from guest memory as they are at that moment, or as copies from the write intercept (GroupSink).
//
// A guest may write while its memory is read: such a group may be stored with a checksum that does not fit, and must be
// handed over once more. A duplicate is only ever called one after a comparison with the bytes in the file, so no other
// group suffers. Pages that a pager has not yet brought in are waited for; one that is poisoned ends the process, so
// nobody saves a machine whose pager has failed.
#pragma once

#include <deque>
#include <span>

#include "core/fd.h"
#include "core/mapping.h"
#include "snapshot/extent_book.h"
#include "snapshot/group_pool.h"
#include "snapshot/group_sink.h"
#include "snapshot/zstd.h"

namespace vivarium {

struct GroupWriterOptions {
  int fd = -1;  // open for reading and writing; it is duplicated
  bool compress = false;
  int level = 1;  // of zstd
  uint32_t threads = 1;
  uint32_t bufferGroups = 0;  // copies that may wait
};

struct GroupWriterProgress {
  bool idle = true;  // nothing waits and nothing is under way
  uint64_t groupsDone = 0;
  uint64_t zeroGroups = 0;
  uint64_t sameGroups = 0;
  uint64_t rawGroups = 0;
  uint64_t zstdGroups = 0;
  uint64_t bytesWritten = 0;
  GroupFailure failure;
};

class GroupWriter : public GroupPool, public GroupSink {
 public:
  // Throws Failure kSyscall, BadArgument.
  GroupWriter(std::shared_ptr<Runtime> runtime, std::shared_ptr<Mapping> memory, const GroupWriterOptions& options);
  ~GroupWriter() override;

  // JavaScript thread. Failure kState while anything is under way or after finish(); BadArgument for a group that is
  // none.
  void write(std::span<const uint32_t> groups);
  // Copies these groups as they are now, to be written from there, and returns when that is done. Failure kState where
  // there is no room for all of them, or as for write(): then none was taken. JavaScript thread.
  void copy(std::span<const uint32_t> groups);
  // What waits is given up, what is under way ends. JavaScript thread.
  void cancel();
  // With nothing under way: what no row covers becomes zeros, the file ends behind the last extent, and is synced.
  // JavaScript thread; Failure kState.
  void finish();
  GroupWriterProgress progress();
  // Of a writer that is idle. JavaScript thread.
  std::vector<GroupRow> rows();
  uint64_t fileBytes();
  void close() override;

  bool offer(uint64_t group, const uint8_t* bytes) override;
  void room(uint64_t timeoutNs) override;

 private:
  void checkGroups(std::span<const uint32_t> groups) const;

  struct Copy {
    uint64_t group;
    uint32_t slot;
  };
  struct Item {
    uint64_t group;
    const uint8_t* bytes;
    uint32_t contentCrc = 0;
    bool done = false;
    // Of what is to be written.
    const uint8_t* stored = nullptr;
    uint32_t storedBytes = 0;
    uint32_t storedCrc = 0;
    GroupCodec codec = GroupCodec::kNone;
    ExtentBook::Id extent = 0;
  };
  class Worker;

  void loop() override;
  bool hasWork() const { return !copies_.empty() || listNext_ < list_.size() || finishing_; }
  void process(Worker& worker, std::vector<Item>& items, bool isLive);
  void settleZeroAndKnown(Worker& worker, std::vector<Item>& items);
  bool sameAs(Worker& worker, const ExtentBook::Extent& extent, const uint8_t* bytes);
  void pack(Worker& worker, std::vector<Item>& items);
  void put(std::vector<Item>& items);
  void makeFinished();
  void fail(const char* syscall, int errnoNumber, uint64_t fileOffset);
  // Of what is under way, with mutex_ held; true when JavaScript is to be told.
  bool ended(size_t groups);

  std::shared_ptr<Mapping> memory_;  // until close()
  const GroupWriterOptions options_;
  Fd fd_;
  std::unique_ptr<uint8_t[]> slots_;

  // Under mutex_:
  std::condition_variable roomAgain_;
  std::deque<Copy> copies_;
  std::vector<uint32_t> freeSlots_;
  std::vector<uint32_t> list_;
  size_t listNext_ = 0;
  uint32_t underWay_ = 0;
  bool finishing_ = false;
  bool finished_ = false;
  bool closed_ = false;
  GroupWriterProgress progress_;
  uint64_t toldAt_ = 0;

  std::mutex bookMutex_;  // inside no other; taken without mutex_
  ExtentBook book_;
  uint64_t flushedTo_ = 0;  // under bookMutex_
};

}  // namespace vivarium

// Requests of file input and output between files and one mapping of guest memory. JavaScript writes a batch of records
// and their pieces into an area that both sides share; each is checked against the mapping here, and handed to the
// executor. Completions come back in the same area. All of it belongs to the JavaScript thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/counters.h"
#include "core/mapping.h"
#include "io/io_executor.h"
#include "io/io_request.h"
#include "thread/machine.h"

namespace vivarium {

// The layout of the area (IoArea of lib/kvm/native.ts).
struct IoArea {
  static constexpr uint32_t kPieces = 4096;
  static constexpr size_t kRecordsAt = 0;
  static constexpr size_t kPiecesAt = kRecordsAt + kIoEntries * sizeof(IoRecord);
  static constexpr size_t kCompletionsAt = kPiecesAt + kPieces * sizeof(IoPiece);
  static constexpr size_t kBytes = kCompletionsAt + kIoEntries * sizeof(IoCompletion);
};

enum class IoKind { kAuto, kUring, kThreads };

class IoQueue {
 public:
  // Holds `memory` until close(). Throws Failure kSyscall when the kind that is wanted can't be had.
  IoQueue(std::shared_ptr<Runtime> runtime, std::shared_ptr<Mapping> memory, IoKind kind);
  ~IoQueue();
  IoQueue(const IoQueue&) = delete;
  IoQueue& operator=(const IoQueue&) = delete;

  // Throws Failure kClosed.
  const char* kind() const;
  // Why kAuto took threads; empty where it did not.
  const std::string& refusal() const { return refusal_; }
  uint32_t sourceId() const { return source_->id(); }
  const std::shared_ptr<Mapping>& area() const { return area_; }
  // Hands over the first `count` records of the area; what has completed already, as reap(). Nothing is handed over
  // when it throws (BadArgument kRange, Failure kClosed).
  uint32_t submit(uint32_t count);
  // Writes what has completed into the area; how many.
  uint32_t reap();
  // Cancels what can be cancelled, waits for the rest, lets the mapping go. Idempotent.
  void close();

 private:
  IoExecutor& executor() const;
  void makeExecutor(IoKind kind);
  IoRequest check(const IoRecord& record);

  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<Mapping> memory_;
  std::shared_ptr<Mapping> area_;
  std::shared_ptr<Source> source_;
  std::string refusal_;
  std::unique_ptr<IoExecutor> executor_;
  std::vector<bool> busy_;           // by tag
  std::vector<IoRequest> requests_;  // of the batch that is handed over
  std::vector<iovec> pieces_;        // of that batch
  Counted counted_;
};

}  // namespace vivarium

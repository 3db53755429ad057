// See io_queue.h. Whoever fills the area is our own code, but a wrong piece would let the kernel write anywhere in this
// process, so nothing is taken on trust.
#include "io/io_queue.h"

#include <climits>

#include "core/failure.h"
#include "io/pool_executor.h"
#include "io/uring_executor.h"

namespace vivarium {
namespace {

constexpr uint32_t kMaxPieces = 1024;  // IOV_MAX of Linux, UIO_MAXIOV of linux/uio.h

}  // namespace

IoQueue::IoQueue(std::shared_ptr<Runtime> runtime, std::shared_ptr<Mapping> memory, IoKind kind)
    : runtime_(std::move(runtime)),
      memory_(std::move(memory)),
      area_(Mapping::anonymous(runtime_->counters, IoArea::kBytes)),
      source_(runtime_->ready->newSource()),
      busy_(kIoEntries),
      counted_(runtime_->counters, &Counters::ioQueues) {
  requests_.reserve(kIoEntries);
  pieces_.reserve(IoArea::kPieces);
  makeExecutor(kind);
}

IoQueue::~IoQueue() {
  close();
}

void IoQueue::makeExecutor(IoKind kind) {
  const IoWake wake = [ready = runtime_->ready, source = source_] { ready->put(source); };
  if (kind != IoKind::kThreads) {
    try {
      executor_ = std::make_unique<UringExecutor>(runtime_->counters, *runtime_->signalWatcher, wake);
      return;
    } catch (const Failure& failure) {
      if (kind == IoKind::kUring || failure.kind() != FailureKind::kSyscall) throw;
      refusal_ = failure.what();
    }
  }
  executor_ = std::make_unique<PoolExecutor>(runtime_->counters, wake);
}

IoExecutor& IoQueue::executor() const {
  if (executor_ == nullptr) throwClosed("I/O queue");
  return *executor_;
}

const char* IoQueue::kind() const {
  return executor().kind();
}

IoRequest IoQueue::check(const IoRecord& record) {
  if (record.op >= kIoOps) throwRange("op: " + std::to_string(record.op));
  if (record.tag >= kIoEntries || busy_[record.tag]) throwRange("tag: " + std::to_string(record.tag));
  if (record.offset > INT64_MAX || record.lengthBytes > INT64_MAX) throwRange("offset or length beyond 2^63");
  const auto op = static_cast<IoOp>(record.op);
  const bool moves = op == IoOp::kRead || op == IoOp::kWrite;
  const uint32_t count = moves ? record.pieceCount : 0;
  if (count > kMaxPieces || record.firstPiece > IoArea::kPieces || count > IoArea::kPieces - record.firstPiece ||
      count > pieces_.capacity() - pieces_.size()) {
    throwRange("pieces: " + std::to_string(count) + " from " + std::to_string(record.firstPiece));
  }
  const size_t first = pieces_.size();
  const auto* piece = reinterpret_cast<const IoPiece*>(area_->data() + IoArea::kPiecesAt) + record.firstPiece;
  for (uint32_t index = 0; index < count; index++, piece++) {
    if (piece->offset > memory_->size() || piece->lengthBytes > memory_->size() - piece->offset) {
      throwRange("a piece outside the memory");
    }
    pieces_.push_back(iovec{memory_->data() + piece->offset, piece->lengthBytes});
  }
  // The storage was reserved and never moves.
  return IoRequest{op, record.fd, record.offset, record.lengthBytes, record.tag, {pieces_.data() + first, count}};
}

uint32_t IoQueue::submit(uint32_t count) {
  IoExecutor& to = executor();
  if (count > kIoEntries) throwRange("count: " + std::to_string(count));
  const auto* records = reinterpret_cast<const IoRecord*>(area_->data() + IoArea::kRecordsAt);
  requests_.clear();
  pieces_.clear();
  try {
    for (uint32_t index = 0; index < count; index++) {
      requests_.push_back(check(records[index]));
      busy_[requests_.back().tag] = true;
    }
  } catch (const BadArgument&) {
    for (const IoRequest& request : requests_) busy_[request.tag] = false;
    throw;
  }
  to.submit(requests_);
  return reap();
}

uint32_t IoQueue::reap() {
  auto* completions = reinterpret_cast<IoCompletion*>(area_->data() + IoArea::kCompletionsAt);
  const auto count = static_cast<uint32_t>(executor().reap({completions, kIoEntries}));
  for (uint32_t index = 0; index < count; index++) busy_[completions[index].tag] = false;
  return count;
}

void IoQueue::close() {
  if (executor_ == nullptr) return;
  executor_->stop();
  executor_.reset();
  source_->retire();
  memory_.reset();
}

}  // namespace vivarium

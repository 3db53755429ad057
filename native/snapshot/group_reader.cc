// See group_reader.h. An eager load goes through the list in the order that it was given (that of the files, where
// TypeScript wants speed): neighbours in a file are read in one piece, raw ones right into guest memory.
#include "snapshot/group_reader.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/failure.h"
#include "snapshot/crc32c.h"
#include "snapshot/zstd.h"

namespace vivarium {
namespace {

constexpr uint64_t kTellGroups = 256;
constexpr uint32_t kMaxFiles = 1024;
constexpr uint64_t kMaxOffset = uint64_t{1} << 62;

ZstdDecompressor& decompressor() {
  static thread_local ZstdDecompressor own;
  return own;
}

void checkRow(const GroupRow& row, size_t files) {
  switch (row.codec) {
    case GroupCodec::kZero: return;
    case GroupCodec::kRaw:
    case GroupCodec::kZstd: {
      const bool fits = row.codec == GroupCodec::kRaw ? row.storedBytes == kGroupBytes
                                                      : row.storedBytes > 0 && row.storedBytes <= kGroupBytes;
      if (!fits || row.file >= files || row.offset > kMaxOffset) break;
      return;
    }
    default: break;
  }
  throwRange("rows: one that can't be read");
}

}  // namespace

GroupReader::GroupReader(std::shared_ptr<Runtime> runtime, std::span<const uint32_t> fds, std::vector<GroupRow> rows,
                         uint32_t threads)
    : GroupPool(std::move(runtime)), rows_(std::move(rows)), wantedThreads_(threads) {
  if (fds.size() > kMaxFiles) throwRange("fds: too many files");
  for (const uint32_t fd : fds) {
    fds_.emplace_back(::fcntl(static_cast<int>(fd), F_DUPFD_CLOEXEC, 3));
    if (!fds_.back().valid()) throwSyscall("fcntl", errno, "F_DUPFD_CLOEXEC");
  }
  bool needsZstd = false;
  for (const GroupRow& row : rows_) {
    checkRow(row, fds_.size());
    needsZstd = needsZstd || row.codec == GroupCodec::kZstd;
  }
  // Loaded here in any case: the threads that read may open no file.
  const bool hasZstd = zstdAvailable();
  if (needsZstd && !hasZstd) throw Failure(FailureKind::kCapability, "libzstd.so.1", ENOENT, "not found");
}

GroupReader::~GroupReader() {
  close();
}

GroupReadResult GroupReader::failed(const GroupRow& row, GroupReadResult::Kind kind, int errnoNumber) const {
  return GroupReadResult{kind, row.file, row.offset, errnoNumber};
}

GroupReadResult GroupReader::unpack(const GroupRow& row, const uint8_t* stored, uint8_t* into) const {
  if (crc32c(stored, row.storedBytes) != row.storedCrc) return failed(row, GroupReadResult::Kind::kChecksum);
  if (row.codec == GroupCodec::kRaw) {
    if (row.contentCrc != row.storedCrc) return failed(row, GroupReadResult::Kind::kChecksum);
    if (into != stored) std::memcpy(into, stored, kGroupBytes);
    return {};
  }
  if (!decompressor().decompress(into, kGroupBytes, stored, row.storedBytes)) {
    return failed(row, GroupReadResult::Kind::kDecompress);
  }
  if (crc32c(into, kGroupBytes) != row.contentCrc) return failed(row, GroupReadResult::Kind::kChecksum);
  return {};
}

GroupReadResult GroupReader::read(uint64_t group, uint8_t* into) {
  static thread_local const std::unique_ptr<uint8_t[]> frame = std::make_unique<uint8_t[]>(kGroupBytes);
  const GroupRow& row = rows_.at(group);
  if (closed_.load(std::memory_order_acquire)) return failed(row, GroupReadResult::Kind::kSystem, EBADF);
  if (row.codec == GroupCodec::kZero) {
    GroupReadResult zero;
    zero.kind = GroupReadResult::Kind::kZero;
    return zero;
  }
  uint8_t* stored = row.codec == GroupCodec::kRaw ? into : frame.get();
  const int error = readFully(fds_[row.file].get(), stored, row.storedBytes, row.offset);
  if (error == -1) return failed(row, GroupReadResult::Kind::kShortRead);
  if (error != 0) return failed(row, GroupReadResult::Kind::kSystem, error);
  return unpack(row, stored, into);
}

void GroupReader::load(std::shared_ptr<Mapping> memory, std::span<const uint32_t> groups, bool fresh) {
  if (closed_.load(std::memory_order_acquire)) throwClosed("snapshot reader");
  for (const uint32_t group : groups) {
    if (group >= rows_.size()) throwRange("groups: " + std::to_string(group) + " is not one of the snapshot");
  }
  if (memory != nullptr && (memory->size() + kGroupBytes - 1) / kGroupBytes != rows_.size()) {
    throwRange("memory: not of the snapshot's size");
  }
  // First: what can't be had leaves nothing under way.
  if (!started_) startThreads(wantedThreads_);
  started_ = true;
  {
    const std::lock_guard lock(mutex_);
    if (hasWork() || underWay_ > 0) throw Failure(FailureKind::kState, "load", EBUSY, "a load is under way");
    memory_ = std::move(memory);
    fresh_ = fresh;
    list_.assign(groups.begin(), groups.end());
    next_ = 0;
    progress_ = {};
    toldAt_ = 0;
  }
  if (groups.empty()) tell();
  work_.notify_all();
}

void GroupReader::cancel() {
  bool idle;
  {
    const std::lock_guard lock(mutex_);
    list_.clear();
    next_ = 0;
    idle = underWay_ == 0;
  }
  if (idle) tell();
}

GroupReaderProgress GroupReader::progress() {
  const std::lock_guard lock(mutex_);
  progress_.idle = !hasWork() && underWay_ == 0;
  if (progress_.idle) memory_.reset();
  toldAt_ = progress_.groupsDone;
  return progress_;
}

void GroupReader::close() {
  closed_.store(true, std::memory_order_release);
  joinThreads();
  const std::lock_guard lock(mutex_);
  memory_.reset();
}

void GroupReader::loop() {
  Scratch scratch;
  std::vector<uint32_t> batch;
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return ending_ || hasWork(); });
    if (ending_) return;
    const size_t count = std::min(kBatchGroups, list_.size() - next_);
    batch.assign(list_.begin() + static_cast<std::ptrdiff_t>(next_),
                 list_.begin() + static_cast<std::ptrdiff_t>(next_ + count));
    next_ += count;
    underWay_++;
    lock.unlock();
    uint64_t failedGroup = 0;
    uint64_t bytes = 0;
    const GroupReadResult result = process(scratch, batch, &failedGroup, &bytes);
    lock.lock();
    underWay_--;
    progress_.groupsDone += count;
    progress_.bytesRead += bytes;
    if (result.failed()) {
      if (!progress_.failure.failed()) {
        progress_.failure = result;
        progress_.failedGroup = failedGroup;
      }
      list_.clear();
      next_ = 0;
    }
    const bool tells = (!hasWork() && underWay_ == 0) || progress_.groupsDone - toldAt_ >= kTellGroups;
    lock.unlock();
    if (tells) tell();
    lock.lock();
  }
}

bool GroupReader::follows(uint32_t before, uint32_t group) const {
  const GroupRow& first = rows_[before];
  const GroupRow& second = rows_[group];
  return second.codec != GroupCodec::kZero && second.file == first.file &&
         second.offset == first.offset + first.storedBytes;
}

uint8_t* GroupReader::place(const Mapping* memory, uint64_t group) const {
  if (memory == nullptr || memory->size() - group * kGroupBytes < kGroupBytes) return nullptr;
  return memory->data() + group * kGroupBytes;
}

GroupReadResult GroupReader::process(Scratch& scratch, std::span<const uint32_t> groups, uint64_t* failedGroup,
                                     uint64_t* bytes) {
  for (size_t first = 0; first < groups.size();) {
    const uint32_t group = groups[first];
    size_t next = first + 1;
    if (rows_[group].codec == GroupCodec::kZero) {
      if (memory_ != nullptr && !fresh_) {
        uint8_t* at = memory_->data() + group * kGroupBytes;
        const size_t length = std::min<uint64_t>(kGroupBytes, memory_->size() - group * kGroupBytes);
        if (!isZero(at, length)) std::memset(at, 0, length);
      }
    } else {
      while (next < groups.size() && follows(groups[next - 1], groups[next])) next++;
      const GroupReadResult result = loadRun(scratch, groups.subspan(first, next - first), failedGroup, bytes);
      if (result.failed()) return result;
    }
    first = next;
  }
  return {};
}

GroupReadResult GroupReader::loadRun(Scratch& scratch, std::span<const uint32_t> groups, uint64_t* failedGroup,
                                     uint64_t* bytes) {
  const GroupRow& start = rows_[groups.front()];
  // Each piece has a place of its own: in guest memory for a raw group, in the scratch for a frame.
  scratch.pieces.clear();
  uint64_t length = 0;
  for (const uint32_t group : groups) {
    const GroupRow& row = rows_[group];
    uint8_t* at = row.codec == GroupCodec::kRaw ? place(memory_.get(), group) : nullptr;
    if (at == nullptr) at = scratch.stored.get() + length;
    scratch.pieces.push_back(iovec{at, row.storedBytes});
    length += row.storedBytes;
  }
  std::vector<iovec> pieces = scratch.pieces;  // used up by the reading
  const int error = readFully(fds_[start.file].get(), pieces.data(), pieces.size(), start.offset);
  if (error != 0 && groups.size() > 1) {
    // Which of them it is, one by one.
    for (const uint32_t group : groups) {
      const GroupReadResult result = loadRun(scratch, std::span(&group, 1), failedGroup, bytes);
      if (result.failed()) return result;
    }
    return {};
  }
  *failedGroup = groups.front();
  if (error == -1) return failed(start, GroupReadResult::Kind::kShortRead);
  if (error != 0) return failed(start, GroupReadResult::Kind::kSystem, error);
  for (size_t index = 0; index < groups.size(); index++) {
    const uint32_t group = groups[index];
    const auto* stored = static_cast<const uint8_t*>(scratch.pieces[index].iov_base);
    uint8_t* target = place(memory_.get(), group);
    uint8_t* into = target != nullptr ? target : scratch.group.get();
    const GroupReadResult result = unpack(rows_[group], stored, into);
    if (result.failed()) {
      *failedGroup = group;
      return result;
    }
    // A last group that is shorter: what lies behind the memory is zero in the file.
    if (memory_ != nullptr && target == nullptr) {
      std::memcpy(memory_->data() + group * kGroupBytes, into, memory_->size() - group * kGroupBytes);
    }
  }
  *bytes += length;
  return {};
}

}  // namespace vivarium

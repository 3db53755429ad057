// See group_writer.h. A batch is at most 1 MiB: one pass over its groups for zero and checksum, one look into the book,
// comparisons, compression, and then one pwritev for each run of neighbours in the file. What zstd is to see is copied
// first, since it may change meanwhile; what it is not goes from where it stands into the file.
#include "snapshot/group_writer.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/failure.h"
#include "snapshot/crc32c.h"

namespace vivarium {
namespace {

// A frame that saves less is not worth its unpacking.
constexpr size_t kWorthBytes = kGroupBytes - kGroupBytes / 16;
// The disk is kept busy while there is more to come, so that the sync at the end finds little left: so many bytes at a
// time, and never the last ones, which other threads may still be writing.
constexpr uint64_t kFlushBytes = 32 << 20;
constexpr uint64_t kFlushLagBytes = 16 << 20;
constexpr uint64_t kTellGroups = 256;
constexpr uint32_t kMaxPause = 32;

}  // namespace

// What one thread has for itself. Memory that zstd did not make smaller is tried more and more seldom, up to one group
// in 33, until one gets smaller again.
class GroupWriter::Worker {
 public:
  explicit Worker(const GroupWriterOptions& options) {
    if (!options.compress) return;
    compressor_ = std::make_unique<ZstdCompressor>(options.level);
    copies.reset(new uint8_t[kBatchGroups * kGroupBytes]);
  }

  bool shouldTry() {
    if (compressor_ == nullptr) return false;
    if (pause_ == 0) return true;
    pause_--;
    return false;
  }
  // Whether one of the next so many may be tried.
  bool mayTryWithin(size_t groups) const { return compressor_ != nullptr && pause_ < groups; }
  // The frame's length, or 0. `from` must not change meanwhile.
  size_t compress(uint8_t* into, const uint8_t* from) {
    const size_t stored = compressor_->compress(into, kWorthBytes, from, kGroupBytes);
    inVain_ = stored == 0 ? std::min(2 * inVain_ + 1, kMaxPause) : 0;
    pause_ = inVain_;
    return stored;
  }

  ZstdDecompressor decompressor;
  std::unique_ptr<uint8_t[]> copies;  // of a batch, where there is zstd
  std::unique_ptr<uint8_t[]> content = std::make_unique<uint8_t[]>(kGroupBytes);
  std::unique_ptr<uint8_t[]> other = std::make_unique<uint8_t[]>(kGroupBytes);
  std::unique_ptr<uint8_t[]> tail = std::make_unique<uint8_t[]>(kGroupBytes);
  std::unique_ptr<uint8_t[]> packed = std::make_unique<uint8_t[]>(kBatchGroups * kGroupBytes);

 private:
  std::unique_ptr<ZstdCompressor> compressor_;
  uint32_t inVain_ = 0;
  uint32_t pause_ = 0;
};

GroupWriter::GroupWriter(std::shared_ptr<Runtime> runtime, std::shared_ptr<Mapping> memory,
                         const GroupWriterOptions& options)
    : GroupPool(std::move(runtime)),
      memory_(std::move(memory)),
      options_(options),
      fd_(::fcntl(options.fd, F_DUPFD_CLOEXEC, 3)),
      book_((memory_->size() + kGroupBytes - 1) / kGroupBytes) {
  if (!fd_.valid()) throwSyscall("fcntl", errno, "F_DUPFD_CLOEXEC");
  const bool hasZstd = zstdAvailable();
  if (options.compress && !hasZstd) throw Failure(FailureKind::kCapability, "libzstd.so.1", ENOENT, "not found");
  if (options.bufferGroups > 0) {
    // Pages come with their first use.
    slots_.reset(new uint8_t[options.bufferGroups * kGroupBytes]);
    for (uint32_t slot = options.bufferGroups; slot > 0; slot--) freeSlots_.push_back(slot - 1);
  }
  startThreads(options.threads);
}

GroupWriter::~GroupWriter() {
  close();
}

void GroupWriter::checkGroups(std::span<const uint32_t> groups) const {
  for (const uint32_t group : groups) {
    if (group >= book_.groups()) throwRange("groups: " + std::to_string(group) + " is not one of the memory");
  }
}

void GroupWriter::write(std::span<const uint32_t> groups) {
  checkGroups(groups);
  bool nothing = false;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throwClosed("snapshot writer");
    if (finished_ || finishing_) throw Failure(FailureKind::kState, "write", EINVAL, "the file is finished");
    // Also one that waits as a copy: a group is in one batch at a time.
    if (hasWork() || underWay_ > 0) throw Failure(FailureKind::kState, "write", EBUSY, "groups are under way");
    if (progress_.failure.syscall == nullptr) list_.assign(groups.begin(), groups.end());
    listNext_ = 0;
    nothing = !hasWork() && underWay_ == 0;
  }
  if (nothing) {
    tell();
  } else {
    work_.notify_all();
  }
}

void GroupWriter::copy(std::span<const uint32_t> groups) {
  checkGroups(groups);
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throwClosed("snapshot writer");
    if (finished_ || finishing_) throw Failure(FailureKind::kState, "copy", EINVAL, "the file is finished");
    if (hasWork() || underWay_ > 0) throw Failure(FailureKind::kState, "copy", EBUSY, "groups are under way");
    // Only this thread takes slots, as long as no write intercept has the writer.
    if (progress_.failure.syscall == nullptr && freeSlots_.size() < groups.size()) {
      throw Failure(FailureKind::kState, "copy", ENOBUFS, std::to_string(groups.size()) + " groups");
    }
  }
  const auto* memory = static_cast<const uint8_t*>(memory_->data());
  std::vector<uint8_t> last;
  for (const uint32_t group : groups) {
    const uint64_t offset = group * kGroupBytes;
    const uint8_t* bytes = memory + offset;
    if (memory_->size() - offset < kGroupBytes) {
      last.assign(kGroupBytes, 0);
      std::memcpy(last.data(), bytes, memory_->size() - offset);
      bytes = last.data();
    }
    offer(group, bytes);
  }
}

void GroupWriter::cancel() {
  {
    const std::lock_guard lock(mutex_);
    list_.clear();
    listNext_ = 0;
    finishing_ = false;
    for (const Copy& copy : copies_) freeSlots_.push_back(copy.slot);
    copies_.clear();
    if (progress_.failure.syscall == nullptr) progress_.failure = {"cancel", ECANCELED, 0};
  }
  roomAgain_.notify_all();
  tell();
}

void GroupWriter::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throwClosed("snapshot writer");
    if (hasWork() || underWay_ > 0 || finished_) {
      throw Failure(FailureKind::kState, "finish", EBUSY, "groups are under way");
    }
    finishing_ = true;
  }
  work_.notify_one();
}

GroupWriterProgress GroupWriter::progress() {
  const std::lock_guard lock(mutex_);
  progress_.idle = !hasWork() && underWay_ == 0;
  toldAt_ = progress_.groupsDone;
  return progress_;
}

std::vector<GroupRow> GroupWriter::rows() {
  const std::lock_guard lock(bookMutex_);
  return book_.rows();
}

uint64_t GroupWriter::fileBytes() {
  const std::lock_guard lock(bookMutex_);
  return book_.endOffset();
}

void GroupWriter::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  roomAgain_.notify_all();
  joinThreads();
  fd_.reset();
  memory_.reset();
}

bool GroupWriter::offer(uint64_t group, const uint8_t* bytes) {
  uint32_t slot;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || progress_.failure.syscall != nullptr || group >= book_.groups()) return true;
    if (freeSlots_.empty()) return false;
    slot = freeSlots_.back();
    freeSlots_.pop_back();
    underWay_++;  // not idle while the copy is made
  }
  std::memcpy(slots_.get() + slot * kGroupBytes, bytes, kGroupBytes);
  {
    const std::lock_guard lock(mutex_);
    underWay_--;
    copies_.push_back(Copy{group, slot});
  }
  work_.notify_one();
  return true;
}

void GroupWriter::room(uint64_t timeoutNs) {
  std::unique_lock lock(mutex_);
  roomAgain_.wait_for(lock, std::chrono::nanoseconds(timeoutNs),
                      [this] { return closed_ || progress_.failure.syscall != nullptr || !freeSlots_.empty(); });
}

bool GroupWriter::ended(size_t groups) {
  underWay_--;
  progress_.groupsDone += groups;
  return (!hasWork() && underWay_ == 0) || progress_.groupsDone - toldAt_ >= kTellGroups;
}

void GroupWriter::loop() {
  Worker worker(options_);
  std::vector<Item> items;
  std::vector<uint32_t> slots;
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return ending_ || hasWork(); });
    if (ending_) return;
    items.clear();
    slots.clear();
    const bool finishes = copies_.empty() && listNext_ >= list_.size();
    for (; !copies_.empty() && items.size() < kBatchGroups; copies_.pop_front()) {
      const Copy& copy = copies_.front();
      slots.push_back(copy.slot);
      items.push_back(Item{copy.group, slots_.get() + copy.slot * kGroupBytes});
    }
    for (; slots.empty() && listNext_ < list_.size() && items.size() < kBatchGroups; listNext_++) {
      const uint64_t group = list_[listNext_];
      items.push_back(Item{group, memory_->data() + group * kGroupBytes});
    }
    const bool failed = progress_.failure.syscall != nullptr;
    if (finishes) finishing_ = false;
    underWay_++;
    lock.unlock();
    const size_t count = items.size();
    if (!failed && finishes) makeFinished();
    if (!failed && !finishes) process(worker, items, slots.empty());
    lock.lock();
    for (const uint32_t slot : slots) freeSlots_.push_back(slot);
    const bool tells = ended(count);
    lock.unlock();
    if (!slots.empty()) roomAgain_.notify_all();
    if (tells) tell();
    lock.lock();
  }
}

// `isLive`: they may change meanwhile, where those of the buffer can't.
void GroupWriter::process(Worker& worker, std::vector<Item>& items, bool isLive) {
  uint8_t* copy = isLive && worker.mayTryWithin(items.size()) ? worker.copies.get() : nullptr;
  for (Item& item : items) {
    const uint64_t start = item.group * kGroupBytes;
    // The last group of a mapping may be shorter.
    if (item.bytes == memory_->data() + start && memory_->size() - start < kGroupBytes) {
      const uint64_t length = memory_->size() - start;
      std::memcpy(worker.tail.get(), item.bytes, length);
      std::memset(worker.tail.get() + length, 0, kGroupBytes - length);
      item.bytes = worker.tail.get();
    }
    if (isZero(item.bytes, kGroupBytes)) {
      item.codec = GroupCodec::kZero;
      continue;
    }
    if (copy != nullptr) {
      std::memcpy(copy, item.bytes, kGroupBytes);
      item.bytes = copy;
      copy += kGroupBytes;
    }
    item.contentCrc = crc32c(item.bytes, kGroupBytes);
  }
  // A duplicate inside the batch waits until its twin is in the file, which it is compared with.
  std::vector<Item> now;
  std::vector<Item> later;
  settleZeroAndKnown(worker, items);
  for (const Item& item : items) {
    if (item.done) continue;
    const bool twin =
        std::any_of(now.begin(), now.end(), [&](const Item& other) { return other.contentCrc == item.contentCrc; });
    (twin ? later : now).push_back(item);
  }
  pack(worker, now);
  put(now);
  if (later.empty()) return;
  settleZeroAndKnown(worker, later);
  std::erase_if(later, [](const Item& item) { return item.done; });
  pack(worker, later);
  put(later);
}

// What needs no room in the file.
void GroupWriter::settleZeroAndKnown(Worker& worker, std::vector<Item>& items) {
  struct Candidate {
    Item* item;
    ExtentBook::Id id;
    ExtentBook::Extent extent;
    bool same = false;
  };
  std::vector<Candidate> candidates;
  uint64_t zeros = 0;
  uint64_t same = 0;
  {
    const std::lock_guard lock(bookMutex_);
    for (Item& item : items) {
      if (item.codec == GroupCodec::kZero) {
        book_.zero(item.group);
        item.done = true;
        zeros++;
      } else if (const auto id = book_.find(item.contentCrc)) {
        candidates.push_back(Candidate{&item, *id, book_.at(*id)});
      }
    }
  }
  for (Candidate& candidate : candidates) candidate.same = sameAs(worker, candidate.extent, candidate.item->bytes);
  if (!candidates.empty()) {
    const std::lock_guard lock(bookMutex_);
    for (const Candidate& candidate : candidates) {
      if (candidate.same) {
        book_.alias(candidate.item->group, candidate.id);
        candidate.item->done = true;
        same++;
      } else {
        book_.leave(candidate.id);
      }
    }
  }
  const std::lock_guard lock(mutex_);
  progress_.zeroGroups += zeros;
  progress_.sameGroups += same;
}

bool GroupWriter::sameAs(Worker& worker, const ExtentBook::Extent& extent, const uint8_t* bytes) {
  uint8_t* stored = worker.other.get();
  if (readFully(fd_.get(), stored, extent.storedBytes, extent.offset) != 0) return false;
  if (extent.codec == GroupCodec::kRaw) return std::memcmp(stored, bytes, kGroupBytes) == 0;
  uint8_t* content = worker.content.get();
  return worker.decompressor.decompress(content, kGroupBytes, stored, extent.storedBytes) &&
         std::memcmp(content, bytes, kGroupBytes) == 0;
}

void GroupWriter::pack(Worker& worker, std::vector<Item>& items) {
  uint8_t* into = worker.packed.get();
  for (Item& item : items) {
    const size_t stored = worker.shouldTry() ? worker.compress(into, item.bytes) : 0;
    if (stored > 0) {
      item.codec = GroupCodec::kZstd;
      item.stored = into;
      item.storedBytes = static_cast<uint32_t>(stored);
      item.storedCrc = crc32c(into, stored);
      into += stored;
    } else {
      item.codec = GroupCodec::kRaw;
      item.stored = item.bytes;
      item.storedBytes = kGroupBytes;
      item.storedCrc = item.contentCrc;
    }
  }
}

void GroupWriter::put(std::vector<Item>& items) {
  if (items.empty()) return;
  std::vector<uint64_t> offsets;
  std::pair<uint64_t, uint64_t> flush{0, 0};
  {
    const std::lock_guard lock(bookMutex_);
    for (Item& item : items) {
      item.extent = book_.place(item.group, item.storedBytes, item.codec, item.storedCrc, item.contentCrc);
      offsets.push_back(book_.at(item.extent).offset);
    }
    const uint64_t end = book_.endOffset();
    if (end - flushedTo_ >= kFlushBytes + kFlushLagBytes) {
      flush = {flushedTo_, end - kFlushLagBytes - flushedTo_};
      flushedTo_ = end - kFlushLagBytes;
    }
  }
  uint64_t bytes = 0;
  std::vector<iovec> pieces;
  for (size_t first = 0; first < items.size();) {
    pieces.clear();
    uint64_t end = offsets[first];
    size_t next = first;
    for (; next < items.size() && offsets[next] == end; next++) {
      pieces.push_back(iovec{const_cast<uint8_t*>(items[next].stored), items[next].storedBytes});
      end += items[next].storedBytes;
    }
    const int error = writeFully(fd_.get(), pieces.data(), pieces.size(), offsets[first]);
    if (error != 0) {
      fail("pwritev", error, offsets[first]);
      return;
    }
    bytes += end - offsets[first];
    first = next;
  }
  {
    const std::lock_guard lock(bookMutex_);
    for (const Item& item : items) book_.settle(item.extent);
  }
  // Only asks for the writing to begin; the sync at the end says whether it went well.
  if (flush.second > 0) {
    ::sync_file_range(fd_.get(), static_cast<off64_t>(flush.first), static_cast<off64_t>(flush.second),
                      SYNC_FILE_RANGE_WRITE);
  }
  const std::lock_guard lock(mutex_);
  progress_.bytesWritten += bytes;
  for (const Item& item : items) (item.codec == GroupCodec::kZstd ? progress_.zstdGroups : progress_.rawGroups)++;
}

void GroupWriter::makeFinished() {
  std::vector<std::pair<uint64_t, uint64_t>> gaps;
  uint64_t end;
  {
    const std::lock_guard lock(bookMutex_);
    gaps = book_.gaps();
    end = book_.endOffset();
  }
  if (::ftruncate(fd_.get(), static_cast<off_t>(end)) != 0) return fail("ftruncate", errno, end);
  std::unique_ptr<uint8_t[]> zeros;
  for (auto [offset, length] : gaps) {
    if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) == 0) {
      continue;
    }
    if (zeros == nullptr) zeros = std::make_unique<uint8_t[]>(kGroupBytes);
    while (length > 0) {
      iovec piece{zeros.get(), std::min(length, kGroupBytes)};
      const uint64_t step = piece.iov_len;
      const int error = writeFully(fd_.get(), &piece, 1, offset);
      if (error != 0) return fail("pwrite", error, offset);
      offset += step;
      length -= step;
    }
  }
  if (::fdatasync(fd_.get()) != 0) return fail("fdatasync", errno, 0);
  const std::lock_guard lock(mutex_);
  finished_ = true;
}

void GroupWriter::fail(const char* syscall, int errnoNumber, uint64_t fileOffset) {
  {
    const std::lock_guard lock(mutex_);
    if (progress_.failure.syscall == nullptr) progress_.failure = {syscall, errnoNumber, fileOffset};
    list_.clear();
    listNext_ = 0;
    for (const Copy& copy : copies_) freeSlots_.push_back(copy.slot);
    copies_.clear();
  }
  roomAgain_.notify_all();
}

}  // namespace vivarium

// What carries out the requests of a queue: io_uring, or a pool of threads. At most `kIoEntries` are under way at once,
// each with a tag of its own below that; the queue sees to it.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "io/io_request.h"

namespace vivarium {

constexpr uint32_t kIoEntries = 256;

class IoExecutor {
 public:
  virtual ~IoExecutor() = default;
  // All of these: JavaScript thread.

  virtual const char* kind() const = 0;
  // Takes the batch over. Never waits and never fails: what can't be started completes with its errno.
  virtual void submit(std::span<const IoRequest> batch) = 0;
  // Takes completions out. What completes after a look that gave less than there is room for wakes JavaScript.
  virtual size_t reap(std::span<IoCompletion> completions) = 0;
  // Cancels what can be cancelled and waits for the rest; gives threads and descriptors back. Idempotent.
  virtual void stop() = 0;
};

// Any thread may call it, as often as it likes.
using IoWake = std::function<void()>;

}  // namespace vivarium

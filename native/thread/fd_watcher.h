// Who calls back when a descriptor was signalled: the event thread (event_loop.h), or the event loop of JavaScript
// itself (bindings/script_poll.h), which spares a signal that is meant for JavaScript a change of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace vivarium {

class FdWatcher {
 public:
  using Handler = std::function<void()>;
  using Key = uint64_t;  // never 0, never used again

  virtual ~FdWatcher() = default;
  // `handler` is called after each signal (an edge: more to read than before), once for several that came close
  // together. The counter need not be read. The
  // descriptor outlives remove(). JavaScript thread; 0 when there will be no calls, since the environment ends.
  virtual Key addSignal(int fd, Handler handler) = 0;
  // No call begins afterwards, but one that has begun on another thread may still be under way. JavaScript thread.
  virtual void remove(Key key) = 0;
};

}  // namespace vivarium

// Eventfds whose signals are meant for JavaScript: each is a source in the queue of what needs its attention. All of it
// belongs to the JavaScript thread; who watches the descriptors is the FdWatcher's business.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "core/event_fd.h"
#include "thread/fd_watcher.h"
#include "thread/ready_queue.h"

namespace vivarium {

class SignalSources {
 public:
  explicit SignalSources(std::shared_ptr<ReadyQueue> ready) : ready_(std::move(ready)) {}

  // The id of the source. `watcher` outlives stop().
  uint32_t watch(std::shared_ptr<EventFd> eventFd, FdWatcher& watcher);
  // Nothing for an id that is not watched.
  void unwatch(uint32_t sourceId);
  // Lets all of them go. Idempotent.
  void stop();

 private:
  struct Watch {
    std::shared_ptr<EventFd> eventFd;  // stays open while it is watched
    std::shared_ptr<Source> source;
    FdWatcher* watcher;
    FdWatcher::Key key;
  };

  std::shared_ptr<ReadyQueue> ready_;
  std::map<uint32_t, Watch> watches_;
};

}  // namespace vivarium

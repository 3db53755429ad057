// A signal puts the source into the queue; the counter stays as it is.
#include "thread/signal_sources.h"

namespace vivarium {

uint32_t SignalSources::watch(std::shared_ptr<EventFd> eventFd, FdWatcher& watcher) {
  std::shared_ptr<Source> source = ready_->newSource();
  const FdWatcher::Key key = watcher.addSignal(eventFd->fd(), [ready = ready_, source] { ready->put(source); });
  const uint32_t id = source->id();
  watches_.emplace(id, Watch{std::move(eventFd), std::move(source), &watcher, key});
  return id;
}

void SignalSources::unwatch(uint32_t sourceId) {
  const auto found = watches_.find(sourceId);
  if (found == watches_.end()) return;
  const Watch& watch = found->second;
  watch.source->retire();
  watch.watcher->remove(watch.key);
  watches_.erase(found);
}

void SignalSources::stop() {
  while (!watches_.empty()) unwatch(watches_.begin()->first);
}

}  // namespace vivarium

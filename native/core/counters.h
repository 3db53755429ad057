// Live native objects of one environment, for leak tests: each object holds one Counted per row it stands in.
#pragma once

#include <atomic>
#include <memory>

namespace vivarium {

struct Counters {
  std::atomic<int> systems{0};
  std::atomic<int> vms{0};
  std::atomic<int> vcpus{0};
  std::atomic<int> threads{0};
  std::atomic<int> mappings{0};
  std::atomic<int> eventFds{0};
  std::atomic<int> ioQueues{0};
  std::atomic<int> taps{0};
  std::atomic<int> groupPools{0};
  std::atomic<int> groupStores{0};
};

using CountersPtr = std::shared_ptr<Counters>;

class Counted {
 public:
  Counted(CountersPtr counters, std::atomic<int> Counters::*row) : counters_(std::move(counters)), row_(row) {
    ((*counters_).*row_).fetch_add(1, std::memory_order_relaxed);
  }
  ~Counted() { ((*counters_).*row_).fetch_sub(1, std::memory_order_relaxed); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  CountersPtr counters_;
  std::atomic<int> Counters::*row_;
};

}  // namespace vivarium

// An eventfd: irqfds, ioeventfds and resample counters are made of them. Never blocks.
#pragma once

#include <cstdint>

#include "core/counters.h"
#include "core/fd.h"

namespace vivarium {

class EventFd {
 public:
  EventFd(const CountersPtr& counters, uint32_t initial);
  int fd() const { return fd_.get(); }
  void write(uint64_t count) const;
  // The counter, which is reset; 0 when nothing was signalled.
  uint64_t read() const;

 private:
  Fd fd_;
  Counted counted_;
};

}  // namespace vivarium

// A tap interface (Documentation/networking/tuntap.rst of Linux): frames, each behind its virtio header, between the
// kernel and JavaScript's own buffers. JavaScript's event loop itself watches for frames (where it can't, the event
// thread does): bytes are copied once, on the JavaScript thread, and what is not read waits in the interface's queue,
// which is bounded and drops.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/counters.h"
#include "core/fd.h"
#include "thread/machine.h"

namespace vivarium {

// if_nametoindex(3): 0 where there is no interface of that name in this network namespace.
uint32_t interfaceIndex(const std::string& name);

class Tap {
 public:
  // Takes the interface, or makes it where there is none: TUNSETIFF with `flags` (IFF_TAP and so on, 16 bits). One that
  // was made goes with the descriptor. Throws Failure kSyscall "open" or "TUNSETIFF", BadArgument for a name that is
  // too long.
  Tap(std::shared_ptr<Runtime> runtime, const std::string& name, uint16_t flags);
  ~Tap();
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  // Nothing is watched any more: the environment ends, and with it who watches. Idempotent.
  void stop();

  uint32_t sourceId() const { return source_->id(); }
  // The name that it has now, since an administrator may change it. Throws Failure kSyscall.
  std::string name() const;
  // TUNSETVNETHDRSZ and TUNSETOFFLOAD. Throw Failure kSyscall.
  void setHeaderBytes(int bytes);
  void setOffloads(unsigned long flags);
  // Of the interface: SIOCGIFFLAGS and SIOCGIFMTU. Throw Failure kSyscall.
  uint32_t interfaceFlags() const;
  uint32_t mtuBytes() const;
  // SIOCSIFFLAGS. Throws Failure kSyscall.
  void setInterfaceFlags(uint32_t flags);

  // Reads frames into `slab`, one behind the other, until `lengths` is full, the rest of the slab could be too small
  // for a frame of `maxFrameBytes`, or there is no more. In that last case `*drained`. Whatever comes afterwards puts
  // the source into the queue. The number of frames. Throws Failure kSyscall when the interface is gone.
  size_t read(std::span<uint8_t> slab, size_t maxFrameBytes, std::span<uint32_t> lengths, bool* drained);
  // One frame; 0, or the errno.
  int write(std::span<const uint8_t> header, std::span<const uint8_t> frame);
  // Whether any interface of this network namespace has changed since the last call; the source stands in the queue at
  // the next change.
  bool changed();

 private:
  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<Source> source_;
  Fd fd_;
  Fd socket_;   // for requests about interfaces, in the namespace that the tap was opened in
  Fd changes_;  // NETLINK_ROUTE, invalid where it can't be had
  // Changes that changed() has not heard of: it is asked each time, and mostly there are none.
  std::shared_ptr<std::atomic<bool>> hasChanges_ = std::make_shared<std::atomic<bool>>(false);
  FdWatcher* watcher_;
  FdWatcher::Key readable_ = 0;
  EventLoop::Key changeable_ = 0;
  Counted counted_;
};

}  // namespace vivarium

// See tap.h. Frames are watched by edges, without a system call to ask for the next; changes of interfaces, which are
// those of the whole namespace, by one shot.
#include "net/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/failure.h"

namespace vivarium {
namespace {

constexpr const char* kDevice = "/dev/net/tun";

void check(int result, const char* request, const std::string& detail) {
  if (result < 0) throwSyscall(request, errno, detail);
}

ifreq requestFor(const std::string& name) {
  ifreq request{};
  if (name.empty() || name.size() >= IFNAMSIZ) throwRange("name: from 1 to 15 bytes are wanted");
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

// Tells of every change of an interface; what it says is not read, so that no format is parsed here.
Fd openChanges() {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (fd.valid() && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) fd.reset();
  return fd;
}

}  // namespace

uint32_t interfaceIndex(const std::string& name) {
  return ::if_nametoindex(name.c_str());
}

Tap::Tap(std::shared_ptr<Runtime> runtime, const std::string& name, uint16_t flags)
    : runtime_(std::move(runtime)),
      source_(runtime_->ready->newSource()),
      fd_(::open(kDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC)),
      watcher_(runtime_->signalWatcher),
      counted_(runtime_->counters, &Counters::taps) {
  if (!fd_.valid()) throwSyscall("open", errno, kDevice);
  ifreq request = requestFor(name);
  request.ifr_flags = static_cast<short>(flags);
  check(ioctlRetry(fd_.get(), TUNSETIFF, &request), "TUNSETIFF", name);
  socket_ = Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  check(socket_.get(), "socket", name);
  changes_ = openChanges();
  readable_ = watcher_->addSignal(fd_.get(), [ready = runtime_->ready, source = source_] { ready->put(source); });
  if (!changes_.valid()) return;
  EventLoop& loop = runtime_->events->loop();
  loop.start();
  changeable_ = loop.addFdOnce(changes_.get(), [ready = runtime_->ready, source = source_, has = hasChanges_] {
    has->store(true, std::memory_order_release);
    ready->put(source);
  });
}

Tap::~Tap() {
  stop();
}

void Tap::stop() {
  if (watcher_ == nullptr) return;
  source_->retire();
  watcher_->remove(readable_);
  watcher_ = nullptr;
  runtime_->events->loop().remove(changeable_);
}

std::string Tap::name() const {
  ifreq request{};
  check(ioctlRetry(fd_.get(), TUNGETIFF, &request), "TUNGETIFF", "");
  return std::string(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
}

void Tap::setHeaderBytes(int bytes) {
  check(ioctlRetry(fd_.get(), TUNSETVNETHDRSZ, &bytes), "TUNSETVNETHDRSZ", std::to_string(bytes));
}

void Tap::setOffloads(unsigned long flags) {
  check(ioctlRetry(fd_.get(), TUNSETOFFLOAD, flags), "TUNSETOFFLOAD", std::to_string(flags));
}

uint32_t Tap::interfaceFlags() const {
  ifreq request = requestFor(name());
  check(ioctlRetry(socket_.get(), SIOCGIFFLAGS, &request), "SIOCGIFFLAGS", request.ifr_name);
  return static_cast<uint16_t>(request.ifr_flags);
}

uint32_t Tap::mtuBytes() const {
  ifreq request = requestFor(name());
  check(ioctlRetry(socket_.get(), SIOCGIFMTU, &request), "SIOCGIFMTU", request.ifr_name);
  return static_cast<uint32_t>(request.ifr_mtu);
}

void Tap::setInterfaceFlags(uint32_t flags) {
  ifreq request = requestFor(name());
  request.ifr_flags = static_cast<short>(flags);
  check(ioctlRetry(socket_.get(), SIOCSIFFLAGS, &request), "SIOCSIFFLAGS", request.ifr_name);
}

size_t Tap::read(std::span<uint8_t> slab, size_t maxFrameBytes, std::span<uint32_t> lengths, bool* drained) {
  *drained = false;
  size_t count = 0;
  for (size_t at = 0; count < lengths.size() && slab.size() - at >= maxFrameBytes;) {
    const ssize_t got = ::read(fd_.get(), slab.data() + at, slab.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != EAGAIN) {
      // What was read before is not lost: the next call finds the same error.
      if (count > 0) return count;
      throwSyscall("read", errno, "tap");
    }
    if (got <= 0) {
      *drained = true;
      break;
    }
    lengths[count++] = static_cast<uint32_t>(got);
    at += static_cast<size_t>(got);
  }
  return count;
}

int Tap::write(std::span<const uint8_t> header, std::span<const uint8_t> frame) {
  const iovec pieces[] = {{const_cast<uint8_t*>(header.data()), header.size()},
                          {const_cast<uint8_t*>(frame.data()), frame.size()}};
  ssize_t written;
  do {
    written = ::writev(fd_.get(), pieces, 2);
  } while (written < 0 && errno == EINTR);
  return written < 0 ? errno : 0;
}

bool Tap::changed() {
  if (!hasChanges_->exchange(false, std::memory_order_acquire)) return false;
  bool any = false;
  uint8_t ignored[64];
  for (;;) {
    const ssize_t got = ::recv(changes_.get(), ignored, sizeof ignored, MSG_TRUNC);
    // ENOBUFS: there were more than the socket holds.
    if (got >= 0 || errno == ENOBUFS) {
      any = true;
    } else if (errno != EINTR) {
      break;
    }
  }
  runtime_->events->loop().rearm(changeable_);
  return any;
}

}  // namespace vivarium

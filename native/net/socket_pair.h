// A pair of connected sockets whose one end may be far behind the other: what a process that does not wait, and drops
// what its socket does not take, should be given for its end. And how it is given to a process that is no child.
#pragma once

#include <cstdint>
#include <span>

#include "core/fd.h"

namespace vivarium {

struct SocketPair {
  Fd own;
  Fd other;
};

// Byte streams (AF_UNIX), both closed by exec. What `other` sends may wait up to `sendBufferBytes`, in the kernel's
// account, which includes its own costs (SO_SNDBUF, socket(7)); less where net.core.wmem_max says so and this process
// has no CAP_NET_ADMIN. Throws Failure kSyscall.
SocketPair socketPair(int sendBufferBytes);

// One message over a connected AF_UNIX socket of SOCK_SEQPACKET, with copies of at most kMaxSentDescriptors descriptors
// (SCM_RIGHTS). Without waiting. Throws BadArgument for more of them, Failure kSyscall "sendmsg": EPIPE when nobody is
// at the other end, EAGAIN when there is no room, EBADF for a descriptor that is none.
constexpr size_t kMaxSentDescriptors = 16;
void sendDescriptors(int socket, std::span<const uint8_t> bytes, std::span<const uint32_t> descriptors);

}  // namespace vivarium

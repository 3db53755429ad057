// A pair of connected sockets whose one end may be far behind the other: what a process that does not wait, and drops
// what its socket does not take, should be given for its end.
#pragma once

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

}  // namespace vivarium

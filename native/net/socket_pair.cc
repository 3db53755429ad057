// See socket_pair.h.
#include "net/socket_pair.h"

#include <sys/socket.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {

SocketPair socketPair(int sendBufferBytes) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) throwSyscall("socketpair", errno);
  SocketPair pair{Fd(fds[0]), Fd(fds[1])};
  // The kernel takes twice what it is told.
  const int half = sendBufferBytes / 2;
  if (::setsockopt(pair.other.get(), SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half) == 0) return pair;
  if (::setsockopt(pair.other.get(), SOL_SOCKET, SO_SNDBUF, &half, sizeof half) < 0) throwSyscall("setsockopt", errno);
  return pair;
}

}  // namespace vivarium

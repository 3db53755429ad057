// See socket_pair.h.
#include "net/socket_pair.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

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

void sendDescriptors(int socket, std::span<const uint8_t> bytes, std::span<const uint32_t> descriptors) {
  if (descriptors.size() > kMaxSentDescriptors) throwRange("descriptors: at most 16 are sent at once");
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(kMaxSentDescriptors * sizeof(int))] = {};
  iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) throwSyscall("sendmsg", errno);
}

}  // namespace vivarium

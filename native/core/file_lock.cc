// See file_lock.h.
#include "core/file_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "core/failure.h"

namespace vivarium {

bool lockFile(int fd, FileLock mode) {
  struct flock lock {};
  lock.l_type = mode == FileLock::kShared ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;  // from 0, length 0: to the end, wherever it moves
  int result;
  do {
    result = ::fcntl(fd, F_OFD_SETLK, &lock);
  } while (result < 0 && errno == EINTR);
  if (result == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  throwSyscall("fcntl", errno, "F_OFD_SETLK");
}

}  // namespace vivarium

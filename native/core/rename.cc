// See rename.h.
#include "core/rename.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>

namespace vivarium {

int renameAt(const std::string& from, const std::string& to, RenameMode mode) {
  const unsigned flags = mode == RenameMode::kExchange ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0) return 0;
  if (mode == RenameMode::kExchange || (errno != EINVAL && errno != ENOSYS)) return errno;
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

}  // namespace vivarium

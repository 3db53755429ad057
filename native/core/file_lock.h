// Advisory locks on whole files, held by the open file description (F_OFD_SETLK, fcntl(2)): they go when its last
// descriptor is closed, also when the process dies, and other descriptors of the same process are as foreign as
// others'.
#pragma once

namespace vivarium {

enum class FileLock { kShared, kExclusive };

// Takes or changes the lock; false when somebody else's stands in the way. Never waits. Throws Failure kSyscall.
bool lockFile(int fd, FileLock mode);

}  // namespace vivarium

// renameat2(2): a rename that never replaces what is there, and one that exchanges two.
#pragma once

#include <string>

namespace vivarium {

enum class RenameMode { kNoReplace, kExchange };

// 0 or an errno. Where the file system knows no such flag (EINVAL), kNoReplace is done by rename(2), which replaces no
// folder but an empty one and no file by a folder.
int renameAt(const std::string& from, const std::string& to, RenameMode mode);

}  // namespace vivarium

/* Landlock's structures and rights (linux/landlock.h, Documentation/userspace-api/landlock.rst) up to ABI 6. Here,
 * since the headers of Debian 12 end at ABI 2, and the kernel that it runs on may know more. */
#ifndef VIVARIUM_FENCE_LANDLOCK_H
#define VIVARIUM_FENCE_LANDLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifndef LANDLOCK_CREATE_RULESET_VERSION
#define LANDLOCK_CREATE_RULESET_VERSION (1U << 0)
#endif

/* struct landlock_ruleset_attr: a kernel of an older ABI is given as many bytes as it knows. */
struct FenceRulesetAttr {
  uint64_t handled_access_fs;
  uint64_t handled_access_net; /* ABI 4 */
  uint64_t scoped;             /* ABI 6 */
};

/* struct landlock_path_beneath_attr */
struct FencePathAttr {
  uint64_t allowed_access;
  int32_t parent_fd;
} __attribute__((packed));

#define FENCE_RULE_PATH_BENEATH 1

#define FENCE_FS_EXECUTE (UINT64_C(1) << 0)
#define FENCE_FS_WRITE_FILE (UINT64_C(1) << 1)
#define FENCE_FS_READ_FILE (UINT64_C(1) << 2)
#define FENCE_FS_READ_DIR (UINT64_C(1) << 3)
#define FENCE_FS_REMOVE_DIR (UINT64_C(1) << 4)
#define FENCE_FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FENCE_FS_MAKE_CHAR (UINT64_C(1) << 6)
#define FENCE_FS_MAKE_DIR (UINT64_C(1) << 7)
#define FENCE_FS_MAKE_REG (UINT64_C(1) << 8)
#define FENCE_FS_MAKE_SOCK (UINT64_C(1) << 9)
#define FENCE_FS_MAKE_FIFO (UINT64_C(1) << 10)
#define FENCE_FS_MAKE_BLOCK (UINT64_C(1) << 11)
#define FENCE_FS_MAKE_SYM (UINT64_C(1) << 12)
#define FENCE_FS_REFER (UINT64_C(1) << 13)     /* ABI 2 */
#define FENCE_FS_TRUNCATE (UINT64_C(1) << 14)  /* ABI 3 */
#define FENCE_FS_IOCTL_DEV (UINT64_C(1) << 15) /* ABI 5 */
#define FENCE_FS_ABI1 ((UINT64_C(1) << 13) - 1)

#define FENCE_NET_BIND_TCP (UINT64_C(1) << 0)
#define FENCE_NET_CONNECT_TCP (UINT64_C(1) << 1)
#define FENCE_SCOPE_ABSTRACT_UNIX_SOCKET (UINT64_C(1) << 0)
#define FENCE_SCOPE_SIGNAL (UINT64_C(1) << 1)

/* What a rule on something that is no folder may hold. */
#define FENCE_FS_OF_FILES \
  (FENCE_FS_EXECUTE | FENCE_FS_WRITE_FILE | FENCE_FS_READ_FILE | FENCE_FS_TRUNCATE | FENCE_FS_IOCTL_DEV)

#define FENCE_READ (FENCE_FS_READ_FILE | FENCE_FS_READ_DIR)
/* Devices are not made, and programs that were written are not executed. IOCTL_DEV: a disk may be a block device. */
#define FENCE_WRITE                                                                                    \
  (FENCE_READ | FENCE_FS_WRITE_FILE | FENCE_FS_REMOVE_DIR | FENCE_FS_REMOVE_FILE | FENCE_FS_MAKE_DIR | \
   FENCE_FS_MAKE_REG | FENCE_FS_MAKE_SOCK | FENCE_FS_MAKE_FIFO | FENCE_FS_MAKE_SYM | FENCE_FS_REFER |  \
   FENCE_FS_TRUNCATE | FENCE_FS_IOCTL_DEV)

#endif

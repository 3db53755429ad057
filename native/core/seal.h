// The process that holds a machine gives up, for all of its threads and for good, the system calls that it has no use
// for once Node runs. Paths, capabilities and limits were taken before that (native/fence/launcher.c).
#pragma once

namespace vivarium {

struct Seal {
  // It connects to sockets of other processes.
  bool connects;
  // It has tap interfaces, which are looked at by way of sockets of other families.
  bool taps;
};

// Rings of io_uring are made before.
//
// Not dumpable, no new privileges, then the filter. 0, or the errno: ENOSYS where the kernel has no filters; EBUSY when
// a thread of ours, with a filter of its own, runs already.
int sealProcess(const Seal& seal);

}  // namespace vivarium

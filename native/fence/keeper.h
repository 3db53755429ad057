// The keeper of a machine's passt: a process outside of the fence, for one that is in it and may start nothing. passt
// makes namespaces of its own, which Landlock does not let, so it can't be a child of the fenced one.
#ifndef VIVARIUM_FENCE_KEEPER_H
#define VIVARIUM_FENCE_KEEPER_H

// Forks the keeper, with this process's rights of now, and returns the socket on which the fenced process asks it: one
// that is inherited over execve(2). `program` is passt, by an absolute path. -1, and errno.
//
// A request is one message (SOCK_SEQPACKET): passt's arguments, a NUL behind each, and two descriptors by SCM_RIGHTS,
// both streams of AF_UNIX: the first is what passt takes frames from and gives them to, the second its
// stderr. No request is answered but by way of that second one:
//
//   it is closed                      what was asked for is not what vivarium asks for; nothing was started
//   passt's own words, then a line    passt has gone: "it ended with status N" or "it ended with signal N"
//
// Whoever shuts down its end of it for writing has that passt killed. When the socket's other end has gone, the keeper
// kills those that run, and goes.
int forkKeeper(const char* program);

#endif

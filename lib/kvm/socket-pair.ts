/** Two connected sockets, the other end of which is for a child process that drops what its socket does not take. */
import { loadBinding } from './binding.js';

/** Descriptors, closed by exec; whoever takes them closes them. */
export interface SocketPair {
  readonly own: number;
  /** For the child. */
  readonly other: number;
}

/**
 * A pair of UNIX stream sockets. What `other` sends may wait up to `sendBufferBytes` (1 to 2^31 - 1) in the kernel's
 * account, which has its own costs in it; less where net.core.wmem_max says so and the user may not exceed it.
 *
 * @throws SystemError of `socketpair` (EMFILE, ENFILE).
 */
export function socketPair(sendBufferBytes: number): SocketPair {
  return loadBinding().addon.socketPair(sendBufferBytes);
}

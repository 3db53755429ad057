/**
 * Two connected sockets, the other end of which is for a process that drops what its socket does not take, and how a process that is no
 * child of this one is given it.
 */
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

/**
 * One message over a connected UNIX socket that keeps messages whole (SOCK_SEQPACKET), with copies of at most 16 descriptors; does not wait.
 *
 * @throws SystemError of `sendmsg`: EPIPE when nobody is at the other end, EAGAIN when there is no room for it, EMSGSIZE when there never
 *   is, EBADF for a descriptor that is none.
 */
export function sendDescriptors(socket: number, bytes: Uint8Array, descriptors: readonly number[]): void {
  loadBinding().addon.sendDescriptors(socket, bytes, Uint32Array.from(descriptors));
}

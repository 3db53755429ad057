/** What a process gives up for good before it runs a guest: system calls that the machine in it has no use for (seccomp(2)). */
import { errnoName, SystemError } from '../base/errors.js';
import { loadBinding } from './binding.js';

/** What is still done. */
export interface SealOptions {
  /** Connects to sockets of other processes. */
  readonly connects: boolean;
  /** Opens tap interfaces. */
  readonly taps: boolean;
}

/**
 * For all threads, before the first of our own. What is given up fails with EPERM from then on; the process can't be dumped or
 * traced by others of its user either.
 *
 * @returns false where the kernel has no filters of system calls.
 * @throws SystemError of `seccomp`: EBUSY when a machine's threads run already.
 */
export function sealProcess({ connects, taps }: SealOptions): boolean {
  const errno = loadBinding().addon.sealProcess(connects, taps);
  if (errno === 0) return true;
  const name = errnoName(errno);
  if (name === 'ENOSYS' || name === 'EINVAL') return false;
  throw new SystemError('seccomp', name, errno);
}

/**
 * Advisory locks of disk images: on the whole file, held by the open file (F_OFD_SETLK), so that a second open of the
 * same image is refused in this process as in another one. What a refusal means is the caller's to say.
 */
import { loadBinding } from '../kvm/binding.js';

/**
 * Takes the lock without waiting, or changes the one that `fd` has; it goes when the file is closed for the last time.
 * An exclusive lock wants a descriptor that may write, a shared one that may read.
 *
 * @returns false when another open file's lock stands in the way.
 * @throws SystemError when the file can't be locked (EBADF; ENOLCK on some network file systems).
 */
export function lockFile(fd: number, mode: 'shared' | 'exclusive'): boolean {
  return loadBinding().addon.lockFile(fd, mode === 'exclusive');
}

/** Renames that Node does not have (renameat2(2)): one that never replaces what is there, and one that exchanges two. */
import { errnoName, SystemError } from '../base/errors.js';
import { loadBinding } from '../kvm/binding.js';

/** @throws SystemError EEXIST or ENOTEMPTY where something is there already, or what the kernel says. */
export function renameNoReplace(from: string, to: string): void {
  rename(from, to, false);
}

/** Both names change places in one step. @throws SystemError EINVAL where the file system can't. */
export function renameExchange(a: string, b: string): void {
  rename(a, b, true);
}

function rename(from: string, to: string, exchange: boolean): void {
  const errno = loadBinding().addon.renameAt(from, to, exchange);
  if (errno !== 0) throw new SystemError('renameat2', errnoName(errno), errno, `${from} to ${to}`);
}

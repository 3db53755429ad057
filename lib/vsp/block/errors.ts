/**
 * Failed requests as values: made here from what a system call answered, and turned into text for the log. Nothing in
 * this room throws for what a guest or a medium does.
 */
import { constants } from 'node:os';
import { errnoName } from '../../base/errors.js';
import type { BlockError, BlockErrorCode } from './contract.js';

export function blockError(code: BlockErrorCode, message: string, cause?: unknown): BlockError {
  return cause === undefined ? { code, message } : { code, message, cause };
}

const { ENOSPC, EDQUOT, EFBIG, EOPNOTSUPP, ENOSYS, EROFS } = constants.errno;

/** The error of a system call: `errno` is positive, `what` says what was tried, for the log. */
export function errnoError(errno: number, what: string): BlockError {
  return blockError(codeOf(errno), `${what}: ${errnoName(errno)}`);
}

function codeOf(errno: number): BlockErrorCode {
  switch (errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return 'no-space';
    case EOPNOTSUPP:
    case ENOSYS:
      return 'unsupported';
    case EROFS:
      return 'read-only';
    default:
      return 'io';
  }
}

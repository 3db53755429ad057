/**
 * What can go wrong with a qcow2 image: ERR_DISK_IMAGE with path and field while it is opened, and a Failure inside the
 * asynchronous parts of a request, which never leaves the backend: its border turns it into a BlockError.
 */
import { constants } from 'node:os';
import { errnoName, VmmError } from '../../../base/errors.js';
import type { BlockError, BlockErrorCode } from '../contract.js';

/** Thrown and caught inside this folder only. */
export class Failure extends Error {
  readonly code: BlockErrorCode;

  constructor(code: BlockErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

export function imageError(path: string, field: string, problem: string, cure?: string): VmmError {
  return new VmmError('ERR_DISK_IMAGE', `${path}: qcow2 ${field}: ${problem}`, cure === undefined ? {} : { cure });
}

/** The value that a request ends with; a bug of ours becomes 'io' with its cause, never an exception. */
export function toBlockError(error: unknown): BlockError {
  if (error instanceof Failure) {
    return { code: error.code, message: error.message, ...(error.cause !== undefined && { cause: error.cause }) };
  }
  return { code: 'io', message: error instanceof Error ? error.message : String(error), cause: error };
}

/** A Failure for a negated errno of the engine, or for what a backing file answered. */
export function errnoFailure(result: number, what: string): Failure {
  const { ENOSPC, EDQUOT, EFBIG } = constants.errno;
  const full = -result === ENOSPC || -result === EDQUOT || -result === EFBIG;
  return new Failure(full ? 'no-space' : 'io', `${what}: ${errnoName(-result)}`);
}

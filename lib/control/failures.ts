/**
 * Errors on their way over the control socket: as `{ error: { code, message, cure } }` with a status of HTTP, and made errors
 * of the same classes again. What nobody foresaw is ERR_CONTROL and keeps its stack to itself.
 */
import { GuestFileError, VmmError, type VmmErrorCode } from '../base/errors.js';

/** A mistake of the caller's: TypeError and RangeError have no code of their own. */
export const ARGUMENT_CODE = 'ERR_ARGUMENT';

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly cure?: string;
  /** Of ARGUMENT_CODE: it is right in kind and out of bounds. Missing: a TypeError. */
  readonly kind?: 'RangeError';
  /** Of ERR_GUEST_FILE: why, by the name of the guest's errno. */
  readonly errno?: string;
}

/** Statuses of HTTP (RFC 9110, 15) by code; anything else that was foreseen is a 422. */
const STATUSES: Readonly<Record<string, number>> = {
  [ARGUMENT_CODE]: 400,
  ERR_NO_MACHINE: 404,
  ERR_STATE: 409,
  ERR_NAME_TAKEN: 409,
  ERR_DISK_LOCKED: 409,
  ERR_CLOSED: 410,
  ERR_ABORTED: 499,
  ERR_CONTROL: 500,
  ERR_AGENT: 502,
  ERR_TIMEOUT: 504,
};

/** The same of ERR_GUEST_FILE, by errno. */
const FILE_STATUSES: Readonly<Record<string, number>> = {
  ENOENT: 404,
  EACCES: 403,
  EPERM: 403,
  EROFS: 403,
  EPROTO: 502,
};

export function failureOf(error: unknown): Failure {
  if (error instanceof VmmError) {
    const { code, message, cure } = error;
    const errno = error instanceof GuestFileError ? error.errno : undefined;
    return { code, message, ...(cure === undefined ? {} : { cure }), ...(errno === undefined ? {} : { errno }) };
  }
  if (error instanceof RangeError) return { code: ARGUMENT_CODE, message: error.message, kind: 'RangeError' };
  if (error instanceof TypeError) return { code: ARGUMENT_CODE, message: error.message };
  return { code: 'ERR_CONTROL', message: error instanceof Error ? error.message : String(error) };
}

export function httpStatusOf({ code, errno = '' }: Failure): number {
  if (code === 'ERR_GUEST_FILE') return FILE_STATUSES[errno] ?? 422;
  return STATUSES[code] ?? 422;
}

export function errorOf({ code, message, cure, kind, errno }: Failure): Error {
  if (code === ARGUMENT_CODE) return kind === 'RangeError' ? new RangeError(message) : new TypeError(message);
  const more = cure === undefined ? {} : { cure };
  if (code === 'ERR_GUEST_FILE') return new GuestFileError(message, errno, more);
  return new VmmError(code as VmmErrorCode, message, more);
}

/** The failure in the body of an answer; undefined when it is none of ours. */
export function failureIn(body: unknown): Failure | undefined {
  const { error } = (typeof body === 'object' && body !== null ? body : {}) as { error?: Partial<Failure> };
  if (typeof error?.code !== 'string' || typeof error.message !== 'string') return undefined;
  const { code, message, cure, kind, errno } = error;
  return {
    code,
    message,
    ...(typeof cure === 'string' && { cure }),
    ...(kind === 'RangeError' && { kind }),
    ...(typeof errno === 'string' && { errno }),
  };
}

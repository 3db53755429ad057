/**
 * File input and output between files and guest memory, as backends take it: asynchronous, vectored, many in flight,
 * completions in batches. The real one (native-io-engine.ts) stands on io_uring or on threads of the addon; units use
 * a fake (fake-io-engine.ts). It moves bytes and knows no disk, format or policy.
 */
import type { IoVector } from './io-vector.js';

/**
 * Bytes moved (or 0 for calls that move none), or a negated errno; never -EINTR or -EAGAIN. Called exactly once for
 * each request, on the JavaScript thread, and never before the call that asked for it has returned.
 */
export type IoDone = (result: number) => void;

/** What fallocate(2) is to do with a range; the file's size is kept. */
export type AllocateMode = 'punch-hole' | 'zero-range';

/**
 * Requests that are in flight together are carried out in any order. One that is asked for after close() ends with
 * -ECANCELED, one on guest memory that was closed with -EFAULT. A descriptor that is open must stay so until its
 * requests are done. A number that is no descriptor, offset or length is the caller's mistake: a RangeError.
 */
export interface IoEngine {
  readonly kind: 'io_uring' | 'threads' | 'fake';
  /**
   * preadv(2): fills `data` from the file at `offset`. A short count means the end of the file, or an error behind it:
   * go on from there to learn. Pages of guest memory are marked dirty before `done` is called.
   */
  read(fd: number, offset: number, data: IoVector, done: IoDone): void;
  /** pwritev(2). A short count is possible (a file system that fills up): go on from there to learn the errno. */
  write(fd: number, offset: number, data: IoVector, done: IoDone): void;
  /** fdatasync(2): what was written and done before is on the medium. */
  sync(fd: number, done: IoDone): void;
  /** fallocate(2) with FALLOC_FL_KEEP_SIZE. -EOPNOTSUPP where the file system can't. */
  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void;
  /** Requests handed in and not done. */
  readonly inFlight: number;
  /** Hands what has gathered in this turn to the kernel now, instead of at the turn's end. */
  flush(): void;
  /** Resolves once nothing is in flight. */
  drained(): Promise<void>;
  /** Waits for what is in flight, then gives the threads and the ring back. Idempotent. */
  close(): Promise<void>;
}

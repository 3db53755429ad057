/**
 * An I/O engine without the addon, for unit tests of backends: real files by node:fs, so that a backend opens its
 * images as ever, and any IoVector by copies. A test can hold requests back, let them go in another order, and make
 * them fail or fall short. What is held has not touched its file: what a crash would lose.
 */
import { fdatasyncSync, fstatSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import type { AllocateMode, IoDone, IoEngine } from './io-engine.js';
import type { IoVector } from './io-vector.js';

export interface FakeIoRequest {
  readonly op: 'read' | 'write' | 'sync' | AllocateMode;
  readonly fd: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** What becomes of a request: it fails and touches nothing, or moves so many bytes at most. */
export type FakeIoFault = { readonly errno: keyof typeof constants.errno } | { readonly atMostBytes: number };

interface Waiting {
  readonly request: FakeIoRequest;
  readonly data: IoVector | undefined;
  readonly done: IoDone;
  /** Asked for after close(). */
  readonly late: boolean;
}

const ZEROES_BYTES = 64 * 1024;

export class FakeIoEngine implements IoEngine {
  readonly kind = 'fake';
  /** All that was asked for, in order. */
  readonly requests: FakeIoRequest[] = [];
  /** Looked at when a request is carried out; undefined lets it be. */
  fault: (request: FakeIoRequest) => FakeIoFault | undefined = () => undefined;
  /** Which of `count` requests that wait goes next: the oldest, unless a test says otherwise. */
  pick: (count: number) => number = () => 0;
  /** Whether the file system knows fallocate(2); it fails with EOPNOTSUPP where not. */
  canAllocate = true;
  readonly #waiting: Waiting[] = [];
  #held = false;
  #scheduled = false;
  #closed = false;
  #whenDrained: (() => void)[] = [];

  get inFlight(): number {
    return this.#waiting.length;
  }

  /** From now on requests wait for `release`. */
  hold(): void {
    this.#held = true;
  }

  /** Carries out `count` of the requests that wait, and calls back at once; without a count all, and holds no more. */
  release(count?: number): void {
    if (count === undefined) this.#held = false;
    for (let left = count ?? Infinity; left > 0 && this.#waiting.length > 0; left--) this.#carryOutNext();
  }

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#begin({ op: 'read', fd, offset, lengthBytes: data.lengthBytes }, data, done);
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#begin({ op: 'write', fd, offset, lengthBytes: data.lengthBytes }, data, done);
  }

  sync(fd: number, done: IoDone): void {
    this.#begin({ op: 'sync', fd, offset: 0, lengthBytes: 0 }, undefined, done);
  }

  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    this.#begin({ op: mode, fd, offset, lengthBytes }, undefined, done);
  }

  flush(): void {}

  drained(): Promise<void> {
    if (this.#waiting.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenDrained.push(resolve));
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.drained();
  }

  #begin(request: FakeIoRequest, data: IoVector | undefined, done: IoDone): void {
    this.requests.push(request);
    this.#waiting.push({ request, data, done, late: this.#closed });
    if (this.#held || this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      // What a callback asks for meanwhile finds a turn of its own.
      for (let left = this.#waiting.length; left > 0 && !this.#held; left--) this.#carryOutNext();
    });
  }

  #carryOutNext(): void {
    const [next] = this.#waiting.splice(this.pick(this.#waiting.length), 1);
    if (!next) throw new RangeError('pick: not one of the requests that wait');
    next.done(next.late ? -constants.errno.ECANCELED : this.#carryOut(next));
    if (this.#waiting.length > 0) return;
    for (const resolve of this.#whenDrained.splice(0)) resolve();
  }

  #carryOut({ request, data }: Waiting): number {
    const { op, fd, offset, lengthBytes } = request;
    const fault = this.fault(request);
    if (fault && 'errno' in fault) return -constants.errno[fault.errno];
    const limit = Math.min(lengthBytes, fault?.atMostBytes ?? lengthBytes);
    try {
      switch (op) {
        case 'read':
          return readFully(fd, offset, data!.slice(0, limit));
        case 'write':
          return writeFully(fd, offset, data!.slice(0, limit));
        case 'sync':
          fdatasyncSync(fd);
          return 0;
        case 'punch-hole':
        case 'zero-range':
          return this.canAllocate ? writeZeroes(fd, offset, limit) : -constants.errno.EOPNOTSUPP;
      }
    } catch (error) {
      const { errno } = error as NodeJS.ErrnoException;
      if (errno === undefined) throw error;
      return errno;
    }
  }
}

function readFully(fd: number, offset: number, data: IoVector): number {
  const bytes = new Uint8Array(data.lengthBytes);
  let moved = 0;
  for (let got = -1; got !== 0 && moved < bytes.length; moved += got) {
    got = readSync(fd, bytes, moved, bytes.length - moved, offset + moved);
  }
  data.copyFrom(bytes.subarray(0, moved));
  return moved;
}

function writeFully(fd: number, offset: number, data: IoVector): number {
  const bytes = new Uint8Array(data.lengthBytes);
  data.copyTo(bytes);
  let moved = 0;
  while (moved < bytes.length) moved += writeSync(fd, bytes, moved, bytes.length - moved, offset + moved);
  return moved;
}

/** What fallocate makes of the range, as far as the file has it: its size is kept. */
function writeZeroes(fd: number, offset: number, lengthBytes: number): number {
  const end = Math.min(offset + lengthBytes, fstatSync(fd).size);
  const zeroes = new Uint8Array(Math.min(ZEROES_BYTES, Math.max(0, end - offset)));
  for (let at = offset; at < end; at += zeroes.length) {
    writeSync(fd, zeroes, 0, Math.min(zeroes.length, end - at), at);
  }
  return 0;
}

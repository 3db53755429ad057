/**
 * For tests of this room: an IoEngine on node:fs, over real files. Requests are really under way at the same time and end
 * in any order, as with the real one; FakeIoEngine (lib/memory) is the one whose order a test decides. It can be told to
 * do things by halves, to fail, and to lack fallocate.
 */
import { fdatasync, fstat, read, write } from 'node:fs';
import { constants } from 'node:os';
import type { AllocateMode, IoDone, IoEngine } from '../../memory/io-engine.js';
import type { IoVector } from '../../memory/io-vector.js';

const { EOPNOTSUPP } = constants.errno;

export interface TestingEngineOptions {
  /** Modes of fallocate that the file system has. Default: both. */
  readonly allocates?: readonly AllocateMode[];
  /** No more than this is moved by one call. */
  readonly maxBytes?: number;
  readonly intercept?: TestingEngine['intercept'];
}

/** A change of a file, as it was asked for; a sync too. */
export type Recorded =
  | { readonly kind: 'write'; readonly fd: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'sync'; readonly fd: number };

type Call = 'read' | 'write' | 'sync' | 'allocate';

export class TestingEngine implements IoEngine {
  readonly kind = 'fake';
  inFlight = 0;
  /** A result instead of doing it; undefined does it. */
  intercept: ((call: Call, offset: number, lengthBytes: number) => number | undefined) | undefined;
  readonly #options: TestingEngineOptions;
  #waiters: (() => void)[] = [];

  constructor(options: TestingEngineOptions = {}) {
    this.#options = options;
    this.intercept = options.intercept;
  }

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('read', offset, data.lengthBytes, done);
    if (!finish) return;
    const bytes = new Uint8Array(Math.min(data.lengthBytes, this.#options.maxBytes ?? data.lengthBytes));
    read(fd, bytes, 0, bytes.length, offset, (error, count) => {
      if (!error) data.slice(0, count).copyFrom(bytes.subarray(0, count));
      finish(error, count);
    });
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('write', offset, data.lengthBytes, done);
    if (!finish) return;
    const bytes = new Uint8Array(Math.min(data.lengthBytes, this.#options.maxBytes ?? data.lengthBytes));
    data.copyTo(bytes);
    this.changes({ kind: 'write', fd, offset, bytes });
    write(fd, bytes, 0, bytes.length, offset, finish);
  }

  sync(fd: number, done: IoDone): void {
    const finish = this.#begin('sync', 0, 0, done);
    if (!finish) return;
    this.changes({ kind: 'sync', fd });
    this.makeDurable(fd, (error) => finish(error, 0));
  }

  /** By writing zeroes: node:fs has no fallocate. */
  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    const finish = this.#begin('allocate', offset, lengthBytes, done);
    if (!finish) return;
    if (!(this.#options.allocates ?? ['punch-hole', 'zero-range']).includes(mode)) {
      setImmediate(() => finish(undefined, -EOPNOTSUPP));
      return;
    }
    fstat(fd, (error, stats) => {
      const length = error ? 0 : Math.max(0, Math.min(lengthBytes, stats.size - offset));
      const bytes = new Uint8Array(length);
      this.changes({ kind: 'write', fd, offset, bytes });
      write(fd, bytes, 0, length, offset, (failed) => finish(failed, 0));
    });
  }

  /** For who records: a file is about to be changed. */
  protected changes(_change: Recorded): void {}

  protected makeDurable(fd: number, done: (error: NodeJS.ErrnoException | null) => void): void {
    fdatasync(fd, done);
  }

  flush(): void {}

  drained(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  close(): Promise<void> {
    return this.drained();
  }

  #begin(
    call: Call,
    offset: number,
    lengthBytes: number,
    done: IoDone,
  ): ((error: NodeJS.ErrnoException | null | undefined, result: number) => void) | undefined {
    this.inFlight++;
    const finish = (error: NodeJS.ErrnoException | null | undefined, result: number): void => {
      this.inFlight--;
      done(error ? -Math.abs(error.errno ?? constants.errno.EIO) : result);
      if (this.inFlight > 0) return;
      for (const resolve of this.#waiters.splice(0)) resolve();
    };
    const instead = this.intercept?.(call, offset, lengthBytes);
    if (instead === undefined) return finish;
    setImmediate(() => finish(undefined, instead));
    return undefined;
  }
}

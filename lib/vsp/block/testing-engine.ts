/**
 * For tests of this room: an IoEngine on node:fs, over real files. It never answers before the call has returned, like
 * the real one, and can be told to answer in any order, to do things by halves, and to lack fallocate.
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
  /** The result of the next calls instead of doing them: undefined does it. */
  readonly intercept?: (what: 'read' | 'write' | 'sync' | 'allocate', offset: number) => number | undefined;
}

export class TestingEngine implements IoEngine {
  readonly kind = 'fake';
  inFlight = 0;
  /** What was asked for, in order. */
  readonly log: string[] = [];
  readonly #options: TestingEngineOptions;
  #waiters: (() => void)[] = [];

  constructor(options: TestingEngineOptions = {}) {
    this.#options = options;
  }

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('read', offset, done);
    if (!finish) return;
    const bytes = new Uint8Array(Math.min(data.lengthBytes, this.#options.maxBytes ?? data.lengthBytes));
    read(fd, bytes, 0, bytes.length, offset, (error, count) => {
      if (!error) data.slice(0, count).copyFrom(bytes.subarray(0, count));
      finish(error, count);
    });
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('write', offset, done);
    if (!finish) return;
    const bytes = new Uint8Array(Math.min(data.lengthBytes, this.#options.maxBytes ?? data.lengthBytes));
    data.copyTo(bytes);
    write(fd, bytes, 0, bytes.length, offset, finish);
  }

  sync(fd: number, done: IoDone): void {
    const finish = this.#begin('sync', 0, done);
    if (finish) fdatasync(fd, (error) => finish(error, 0));
  }

  /** By writing zeroes: node:fs has no fallocate. */
  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    const finish = this.#begin('allocate', offset, done);
    if (!finish) return;
    if (!(this.#options.allocates ?? ['punch-hole', 'zero-range']).includes(mode)) {
      setImmediate(() => finish(undefined, -EOPNOTSUPP));
      return;
    }
    fstat(fd, (error, stats) => {
      const length = error ? 0 : Math.max(0, Math.min(lengthBytes, stats.size - offset));
      write(fd, new Uint8Array(length), 0, length, offset, (failed) => finish(failed, 0));
    });
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
    what: 'read' | 'write' | 'sync' | 'allocate',
    offset: number,
    done: IoDone,
  ): ((error: NodeJS.ErrnoException | null | undefined, result: number) => void) | undefined {
    this.inFlight++;
    this.log.push(what);
    const finish = (error: NodeJS.ErrnoException | null | undefined, result: number): void => {
      this.inFlight--;
      done(error ? -Math.abs(error.errno ?? constants.errno.EIO) : result);
      if (this.inFlight > 0) return;
      for (const resolve of this.#waiters.splice(0)) resolve();
    };
    const instead = this.#options.intercept?.(what, offset);
    if (instead === undefined) return finish;
    setImmediate(() => finish(undefined, instead));
    return undefined;
  }
}

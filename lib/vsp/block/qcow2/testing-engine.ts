/**
 * For the tests of qcow2: an IoEngine on node:fs over real files that records what changes them, in the order in which
 * it was done, so that a test can replay any prefix of it as a crash would leave it. Failures can be injected.
 */
import { fstat, read, write } from 'node:fs';
import { constants } from 'node:os';
import type { AllocateMode, IoDone, IoEngine } from '../../../memory/io-engine.js';
import type { IoVector } from '../../../memory/io-vector.js';

export type Recorded =
  | { readonly kind: 'write'; readonly fd: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'sync'; readonly fd: number };

type Call = 'read' | 'write' | 'sync' | 'allocate';

export class TestingEngine implements IoEngine {
  readonly kind = 'fake';
  inFlight = 0;
  /** Changes in the order in which they were asked for; a sync where it was done. */
  readonly history: Recorded[] = [];
  recording = false;
  /** A result instead of doing it; undefined does it. */
  intercept: ((call: Call, offset: number, lengthBytes: number) => number | undefined) | undefined;
  #waiters: (() => void)[] = [];

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('read', offset, data.lengthBytes, done);
    if (!finish) return;
    const bytes = new Uint8Array(data.lengthBytes);
    read(fd, bytes, 0, bytes.length, offset, (error, count) => {
      if (!error) data.slice(0, count).copyFrom(bytes.subarray(0, count));
      finish(error, count);
    });
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    const finish = this.#begin('write', offset, data.lengthBytes, done);
    if (!finish) return;
    const bytes = new Uint8Array(data.lengthBytes);
    data.copyTo(bytes);
    if (this.recording) this.history.push({ kind: 'write', fd, offset, bytes });
    write(fd, bytes, 0, bytes.length, offset, finish);
  }

  sync(fd: number, done: IoDone): void {
    const finish = this.#begin('sync', 0, 0, done);
    if (!finish) return;
    if (this.recording) this.history.push({ kind: 'sync', fd });
    // Nothing of a test has to outlive this machine: only the order counts.
    setImmediate(() => finish(undefined, 0));
  }

  /** By writing zeroes: node:fs has no fallocate. */
  allocate(fd: number, _mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    const finish = this.#begin('allocate', offset, lengthBytes, done);
    if (!finish) return;
    fstat(fd, (error, stats) => {
      const length = error ? 0 : Math.max(0, Math.min(lengthBytes, stats.size - offset));
      const bytes = new Uint8Array(length);
      if (this.recording) this.history.push({ kind: 'write', fd, offset, bytes });
      write(fd, bytes, 0, length, offset, (failed) => finish(failed, 0));
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

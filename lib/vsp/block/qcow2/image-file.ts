/**
 * The file below an image, as promises over the I/O engine: whole reads and writes, growth, syncs. Everything that
 * changes the file goes through here and so through the engine, data and metadata alike: a test that records the
 * engine's calls has the whole history of the file.
 */
import type { IoEngine } from '../../../memory/io-engine.js';
import { HostVector, type IoVector } from '../../../memory/io-vector.js';
import { constants } from 'node:os';
import { Failure, errnoFailure } from './failure.js';

const ZERO_BYTES = 256 * 1024;
/** The file grows in steps, so that not every new cluster changes the inode; what is not used stays a hole. */
const GROWTH_BYTES = 1024 * 1024;

export class ImageFile {
  readonly path: string;
  readonly fd: number;
  readonly #engine: IoEngine;
  #endBytes: number;
  #lost: Failure | undefined;

  constructor(path: string, fd: number, engine: IoEngine, endBytes: number) {
    this.path = path;
    this.fd = fd;
    this.#engine = engine;
    this.#endBytes = endBytes;
  }

  /** Size of the file, as far as it was told or made. */
  get endBytes(): number {
    return this.#endBytes;
  }

  /** Fills `data`; what lies behind the end of the file known is zero, an end before that is 'io'. */
  read(offset: number, data: IoVector): Promise<void> {
    return new Promise((resolve, reject) =>
      this.readThen(offset, data, (failure) => (failure ? reject(failure) : resolve())),
    );
  }

  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    const there = Math.max(0, Math.min(data.lengthBytes, this.#endBytes - offset));
    if (there < data.lengthBytes) data.slice(there, data.lengthBytes - there).fill(0);
    const step = (from: number): void => {
      if (from === there) return done(undefined);
      this.#engine.read(this.fd, offset + from, data.slice(from, there - from), (result) => {
        if (result < 0) done(errnoFailure(result, `${this.path}: read at ${offset + from}`));
        else if (result === 0) done(new Failure('io', `${this.path} ended at ${offset + from}: it has shrunk`));
        else step(from + result);
      });
    };
    if (there === 0) queueMicrotask(() => done(undefined));
    else step(0);
  }

  write(offset: number, data: IoVector): Promise<void> {
    return new Promise((resolve, reject) =>
      this.writeThen(offset, data, (failure) => (failure ? reject(failure) : resolve())),
    );
  }

  writeThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    const step = (from: number): void => {
      this.#engine.write(this.fd, offset + from, data.slice(from, data.lengthBytes - from), (result) => {
        if (result <= 0) return done(errnoFailure(result || -constants.errno.ENOSPC, `${this.path}: write`));
        if (from + result < data.lengthBytes) return step(from + result);
        this.#endBytes = Math.max(this.#endBytes, offset + data.lengthBytes);
        done(undefined);
      });
    };
    step(0);
  }

  async writeZeroes(offset: number, lengthBytes: number): Promise<void> {
    const zeroes = new HostVector(new Uint8Array(Math.min(ZERO_BYTES, lengthBytes)));
    for (let at = 0; at < lengthBytes; at += zeroes.lengthBytes) {
      await this.write(offset + at, zeroes.slice(0, Math.min(zeroes.lengthBytes, lengthBytes - at)));
    }
  }

  /** Makes the file reach `endBytes` at least; what is new reads as zeroes. */
  async growTo(endBytes: number): Promise<void> {
    if (endBytes <= this.#endBytes) return;
    const end = Math.ceil(endBytes / GROWTH_BYTES) * GROWTH_BYTES;
    await this.write(end - 512, new HostVector(new Uint8Array(512)));
  }

  /**
   * What was written and done before is durable. Once it failed it fails for ever: the kernel has then dropped pages
   * that it will not mention again, and a later success would promise data that is gone.
   */
  sync(): Promise<void> {
    if (this.#lost) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) =>
      this.#engine.sync(this.fd, (result) => {
        if (result >= 0) return resolve();
        this.#lost = errnoFailure(result, `${this.path}: sync`);
        reject(this.#lost);
      }),
    );
  }

  /** Gives the space of a range back where the file system can; a hint, so that a refusal is none of our business. */
  punch(offset: number, lengthBytes: number): Promise<void> {
    return new Promise((resolve) => this.#engine.allocate(this.fd, 'punch-hole', offset, lengthBytes, () => resolve()));
  }
}

/**
 * Reads of an image: a request is cut into extents, each of which comes from this file, from the backing file, or is
 * zero. One extent whose mapping is at hand, the usual case, takes no promise.
 */
import type { IoVector } from '../../../memory/io-vector.js';
import type { Backing } from './backing.js';
import { Failure } from './failure.js';
import type { ImageFile } from './image-file.js';
import type { Extent, Mapping } from './mapping.js';
import type { Generations } from './mutex.js';

export type ReadDone = (failure: unknown) => void;

export class Reader {
  readonly #file: ImageFile;
  readonly #mapping: Mapping;
  readonly #users: Generations;
  readonly #backing: Backing | undefined;

  constructor(file: ImageFile, mapping: Mapping, users: Generations, backing: Backing | undefined) {
    this.#file = file;
    this.#mapping = mapping;
    this.#users = users;
    this.#backing = backing;
  }

  readThen(offset: number, data: IoVector, done: ReadDone): void {
    const generation = this.#users.enter();
    const end: ReadDone = (failure) => {
      this.#users.leave(generation);
      done(failure);
    };
    let extent: Extent | undefined;
    try {
      extent = this.#mapping.peek(offset, data.lengthBytes);
    } catch (error) {
      return end(error);
    }
    if (extent?.lengthBytes === data.lengthBytes) return this.#readExtent(extent, offset, data, end);
    this.#readMany(offset, data).then(() => end(undefined), end);
  }

  /** What shows through from the backing file: zeroes where there is none, or behind its end. */
  readBackingThen(offset: number, data: IoVector, done: ReadDone): void {
    const there = this.backedBytes(offset, data.lengthBytes);
    if (there < data.lengthBytes) data.slice(there, data.lengthBytes - there).fill(0);
    if (there === 0 || !this.#backing) return done(undefined);
    this.#backing.readThen(offset, data.slice(0, there), done);
  }

  /** How much of a range, from its start, the backing file reaches. */
  backedBytes(offset: number, lengthBytes: number): number {
    return Math.max(0, Math.min(lengthBytes, (this.#backing?.sizeBytes ?? 0) - offset));
  }

  async #readMany(offset: number, data: IoVector): Promise<void> {
    const parts: Promise<void>[] = [];
    try {
      for (let at = 0; at < data.lengthBytes;) {
        const extent = await this.#mapping.lookup(offset + at, data.lengthBytes - at);
        const part = data.slice(at, extent.lengthBytes);
        const from = offset + at;
        parts.push(
          new Promise((resolve, reject) =>
            this.#readExtent(extent, from, part, (failure) =>
              failure === undefined
                ? resolve()
                : reject(failure instanceof Error ? failure : new Failure('io', 'read')),
            ),
          ),
        );
        at += extent.lengthBytes;
      }
    } catch (error) {
      parts.push(Promise.reject(error instanceof Error ? error : new Failure('io', String(error))));
    }
    await settled(parts);
  }

  #readExtent(extent: Extent, offset: number, data: IoVector, done: ReadDone): void {
    switch (extent.kind) {
      case 'data':
        return this.#file.readThen(extent.hostOffset, data, done);
      case 'zero':
        data.fill(0);
        return done(undefined);
      case 'unallocated':
        return this.readBackingThen(offset, data, done);
    }
  }
}

/** Waits for all, since each uses the request's memory until it ends; then throws the first failure. */
export async function settled(parts: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(parts);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}

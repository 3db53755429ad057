/**
 * 512-byte requests on a medium with larger blocks: the partly covered block at either end is read, changed and
 * written; whole blocks in between go through as they are. A request of whole blocks costs one comparison.
 *
 * Towards the guest each request is atomic, and a neighbour's sector in a shared block is never lost, because the
 * provider's range lock works in units of the medium's blocks: no two changes of one block are ever in flight at once.
 *
 *        |<-- block -->|<-- block -->|<-- block -->|<-- block -->|
 *               [======|=============|=============|====]
 *                head         whole blocks          tail
 */
import { HostVector, type IoVector } from '../../../memory/io-vector.js';
import { alignDown, alignUp } from '../../../base/units.js';
import { SECTOR_BYTES, type BlockBackend, type BlockDone, type BlockGeometry } from '../contract.js';
import type { BackendDescription } from '../../contract.js';
import { inSequence } from './sequence.js';
import { writeZeroesByWriting } from './zeroes.js';

/** The backend as one with 512-byte blocks. It has the methods that the backend has. */
export class SmallBlocks implements BlockBackend {
  readonly #lower: BlockBackend;
  readonly #blockBytes: number;
  readonly write?: (offset: number, data: IoVector, done: BlockDone) => void;
  readonly flush?: (done: BlockDone) => void;
  readonly discard?: (offset: number, lengthBytes: number, done: BlockDone) => void;
  readonly writeZeroes?: (offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone) => void;

  constructor(lower: BlockBackend) {
    this.#lower = lower;
    this.#blockBytes = lower.geometry.blockBytes;
    if (lower.write) this.write = (offset, data, done) => this.#write(offset, data, done);
    if (lower.flush) this.flush = (done) => lower.flush!(done);
    if (lower.discard) this.discard = (offset, lengthBytes, done) => this.#discard(offset, lengthBytes, done);
    if (lower.writeZeroes) {
      this.writeZeroes = (offset, lengthBytes, mayUnmap, done) =>
        this.#writeZeroes(offset, lengthBytes, mayUnmap, done);
    }
  }

  get geometry(): BlockGeometry {
    return { ...this.#lower.geometry, blockBytes: SECTOR_BYTES };
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    if (this.#isWhole(offset, data.lengthBytes)) {
      this.#lower.read(offset, data, done);
      return;
    }
    this.#eachPart(offset, data.lengthBytes, done, (from, length, next) => {
      const part = data.slice(from - offset, length);
      if (this.#isWhole(from, length)) this.#lower.read(from, part, next);
      else this.#readPart(from, part, next);
    });
  }

  describe(): BackendDescription {
    return this.#lower.describe();
  }

  close(): Promise<void> {
    return this.#lower.close();
  }

  #write(offset: number, data: IoVector, done: BlockDone): void {
    if (this.#isWhole(offset, data.lengthBytes)) {
      this.#lower.write!(offset, data, done);
      return;
    }
    this.#eachPart(offset, data.lengthBytes, done, (from, length, next) => {
      const part = data.slice(from - offset, length);
      if (this.#isWhole(from, length)) this.#lower.write!(from, part, next);
      else this.#changePart(from, length, (bytes) => part.copyTo(bytes), next);
    });
  }

  /** Only whole blocks: what is left of the range may keep its data. */
  #discard(offset: number, lengthBytes: number, done: BlockDone): void {
    const from = alignUp(offset, this.#blockBytes);
    const to = alignDown(offset + lengthBytes, this.#blockBytes);
    if (from >= to) done(undefined);
    else this.#lower.discard!(from, to - from, done);
  }

  #writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void {
    const lower = this.#lower;
    if (this.#isWhole(offset, lengthBytes)) {
      lower.writeZeroes!(offset, lengthBytes, mayUnmap, done);
      return;
    }
    this.#eachPart(offset, lengthBytes, done, (from, length, next) => {
      if (!this.#isWhole(from, length)) this.#changePart(from, length, (bytes) => bytes.fill(0), next);
      else {
        lower.writeZeroes!(from, length, mayUnmap, (error) => {
          // The head is written already: the rest must follow, whoever does it.
          if (error?.code === 'unsupported') writeZeroesByWriting(lower, from, length, next);
          else next(error);
        });
      }
    });
  }

  #isWhole(offset: number, lengthBytes: number): boolean {
    return offset % this.#blockBytes === 0 && lengthBytes % this.#blockBytes === 0;
  }

  /** Head, whole blocks and tail, as far as there are such. */
  #eachPart(
    offset: number,
    lengthBytes: number,
    done: BlockDone,
    visit: (from: number, length: number, next: BlockDone) => void,
  ): void {
    const block = this.#blockBytes;
    const end = offset + lengthBytes;
    let at = offset;
    inSequence((_index, next) => {
      if (at >= end) return false;
      const from = at;
      if (from % block !== 0 || end - from < block) at = Math.min(end, alignDown(from, block) + block);
      else at = alignDown(end, block);
      visit(from, at - from, next);
      return true;
    }, done);
  }

  #readPart(from: number, part: IoVector, done: BlockDone): void {
    const blockAt = alignDown(from, this.#blockBytes);
    const bounce = new HostVector(new Uint8Array(this.#blockBytes));
    this.#lower.read(blockAt, bounce, (error) => {
      if (error === undefined) part.copyFrom(bounce.bytes.subarray(from - blockAt, from - blockAt + part.lengthBytes));
      done(error);
    });
  }

  #changePart(from: number, length: number, change: (bytes: Uint8Array) => void, done: BlockDone): void {
    const blockAt = alignDown(from, this.#blockBytes);
    const bounce = new HostVector(new Uint8Array(this.#blockBytes));
    this.#lower.read(blockAt, bounce, (error) => {
      if (error !== undefined) {
        done(error);
        return;
      }
      change(bounce.bytes.subarray(from - blockAt, from - blockAt + length));
      this.#lower.write!(blockAt, bounce, done);
    });
  }
}

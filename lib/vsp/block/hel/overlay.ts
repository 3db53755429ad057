/**
 * Writes on a read-only base, when the user asks for it: changed blocks are kept in memory, up to a bound, and end with
 * the machine. Reads take the changed blocks from memory and the rest from the base, without a copy of the latter. It
 * outlives a change of the backend: the new base goes under the same changed blocks.
 *
 * A block is in one of three states: in the base; here (with bytes); zero (no bytes). The provider's range lock works
 * in units of these blocks, so no two changes of one block are in flight at once.
 */
import { VmmError } from '../../../base/errors.js';
import { HostVector, type IoVector } from '../../../memory/io-vector.js';
import type { BackendDescription } from '../../contract.js';
import { SECTOR_BYTES, type BlockBackend, type BlockDone, type BlockGeometry } from '../contract.js';
import { blockError } from '../errors.js';
import { UnitStore, ZERO_UNIT as ZERO, type FrozenUnits } from '../unit-store.js';
import { inSequence } from './sequence.js';

/** What the mark of such a block is counted as, so that a guest can't fill the host's memory with marks. */
const MARK_BYTES = 64;

/** Puts the new bytes of a part into `target`; `from` is its place on the disk. */
type Fill = (target: Uint8Array, from: number) => void;

export class CopyOnWriteOverlay implements BlockBackend {
  /** Unit of what is kept. */
  readonly blockBytes: number;
  readonly maxBytes: number;
  #base: BlockBackend;
  readonly #blocks: UnitStore;
  #usedBytes = 0;
  /** Set aside by changes in flight. */
  #asideBytes = 0;

  /** @param blockBytes a power of two, not below the base's blocks; `base` takes requests in units of 512 bytes */
  constructor(base: BlockBackend, blockBytes: number, maxBytes: number) {
    this.#base = base;
    this.blockBytes = blockBytes;
    this.#blocks = new UnitStore(blockBytes);
    this.maxBytes = maxBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get geometry(): BlockGeometry {
    return { ...this.#base.geometry, blockBytes: SECTOR_BYTES };
  }

  /** The same data from elsewhere: a rebind. Nothing is in flight. */
  setBase(base: BlockBackend): void {
    this.#base = base;
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    const end = offset + data.lengthBytes;
    let at = offset;
    inSequence((_index, next) => {
      if (at >= end) return false;
      const from = at;
      const kept = this.#blocks.get(this.#index(from));
      at = kept ? Math.min(end, this.#blockEnd(from)) : this.#endOfBase(from, end);
      const part = data.slice(from - offset, at - from);
      if (kept === undefined) {
        this.#base.read(from, part, next);
        return true;
      }
      const inBlock = from % this.blockBytes;
      if (kept === ZERO) part.fill(0);
      else part.copyFrom(kept.subarray(inBlock, inBlock + part.lengthBytes));
      next(undefined);
      return true;
    }, done);
  }

  write(offset: number, data: IoVector, done: BlockDone): void {
    this.#change(offset, data.lengthBytes, done, (target, from) => {
      data.slice(from - offset, target.length).copyTo(target);
    });
  }

  /** Blocks that are here and wholly inside give their memory back; the rest keeps its data. */
  discard(offset: number, lengthBytes: number, done: BlockDone): void {
    const end = offset + lengthBytes;
    const first = Math.ceil(offset / this.blockBytes);
    const count = Math.floor(end / this.blockBytes) - first;
    if (count <= this.#blocks.size) {
      for (let index = first; index < first + count; index++) this.#forget(index);
    } else {
      for (const index of this.#blocks.keys()) if (index >= first && index < first + count) this.#forget(index);
    }
    done(undefined);
  }

  writeZeroes(offset: number, lengthBytes: number, _mayUnmap: boolean, done: BlockDone): void {
    this.#change(offset, lengthBytes, done, undefined);
  }

  /** What is only in memory is as durable as it will ever be. */
  flush(done: BlockDone): void {
    done(undefined);
  }

  freeze(): FrozenUnits {
    return this.#blocks.freeze();
  }

  /**
   * Contents of a snapshot, in an overlay that has none. They are its own from now on.
   *
   * @throws VmmError ERR_SNAPSHOT for blocks of another size, or more than there is room for.
   */
  fill({ unitBytes, units }: Pick<FrozenUnits, 'unitBytes' | 'units'>): void {
    if (unitBytes !== this.blockBytes) {
      throw new VmmError(
        'ERR_SNAPSHOT',
        `changed blocks of ${unitBytes} bytes for a disk that keeps ${this.blockBytes}`,
      );
    }
    for (const [index, block] of units) this.#put(index, block.length === 0 ? ZERO : block);
    if (this.#usedBytes <= this.maxBytes) return;
    throw new VmmError(
      'ERR_SNAPSHOT',
      `changed blocks of ${this.#usedBytes} bytes, where ${this.maxBytes} may be kept`,
    );
  }

  describe(): BackendDescription {
    return { kind: 'copy-on-write', usedBytes: this.#usedBytes, maxBytes: this.maxBytes, base: this.#base.describe() };
  }

  close(): Promise<void> {
    this.#blocks.clear();
    this.#usedBytes = 0;
    return Promise.resolve();
  }

  /**
   * Changes a range, by `fill` or to zeroes. The memory is set aside before anything is changed, so that a request that
   * does not fit changes nothing, also when others are in flight.
   */
  #change(offset: number, lengthBytes: number, done: BlockDone, fill: Fill | undefined): void {
    const end = offset + lengthBytes;
    let asideBytes = this.#needed(offset, end, fill === undefined);
    if (this.#usedBytes + this.#asideBytes + asideBytes > this.maxBytes) {
      done(blockError('no-space', `the copy-on-write memory of ${this.maxBytes} bytes is full`));
      return;
    }
    this.#asideBytes += asideBytes;
    const put = (index: number, block: Uint8Array): void => {
      const grownBytes = Math.max(0, this.#put(index, block));
      asideBytes -= grownBytes;
      this.#asideBytes -= grownBytes;
    };
    let at = offset;
    const step = (next: BlockDone): boolean => {
      if (at >= end) return false;
      const from = at;
      at = Math.min(end, this.#blockEnd(from));
      const to = at;
      const index = this.#index(from);
      const start = index * this.blockBytes;
      const whole = this.#isWhole(from, end);
      const kept = this.#blocks.get(index);
      if (fill === undefined && (whole || kept === ZERO)) {
        put(index, ZERO);
        next(undefined);
        return true;
      }
      const apply = (block: Uint8Array): void => {
        const target = block.subarray(from - start, to - start);
        if (fill) fill(target, from);
        else target.fill(0);
        put(index, block);
      };
      if (kept === undefined && !whole) {
        this.#readBase(index, (block, error) => {
          if (error === undefined) apply(block);
          next(error);
        });
        return true;
      }
      apply(kept === undefined || kept === ZERO ? new Uint8Array(this.blockBytes) : this.#blocks.mutable(index)!);
      next(undefined);
      return true;
    };
    inSequence(
      (_index, next) => step(next),
      (error) => {
        this.#asideBytes -= asideBytes;
        done(error);
      },
    );
  }

  /** Memory that a change of [offset, end) needs beyond what its blocks have. */
  #needed(offset: number, end: number, zeroing: boolean): number {
    let needed = 0;
    for (let at = offset; at < end; at = this.#blockEnd(at)) {
      const kept = this.#blocks.get(this.#index(at));
      const zero = zeroing && (kept === ZERO || this.#isWhole(at, end));
      needed += Math.max(0, (zero ? MARK_BYTES : this.blockBytes) - this.#cost(kept));
    }
    return needed;
  }

  #readBase(index: number, done: (block: Uint8Array, error: Parameters<BlockDone>[0]) => void): void {
    const block = new Uint8Array(this.blockBytes);
    const from = index * this.blockBytes;
    const length = Math.min(this.blockBytes, this.#base.geometry.sizeBytes - from);
    this.#base.read(from, new HostVector(block.subarray(0, length)), (error) => done(block, error));
  }

  #forget(index: number): void {
    if (this.#cost(this.#blocks.get(index)) > MARK_BYTES) this.#put(index, ZERO);
  }

  /** By how much the memory used has grown. */
  #put(index: number, block: Uint8Array): number {
    const grownBytes = this.#cost(block) - this.#cost(this.#blocks.get(index));
    this.#usedBytes += grownBytes;
    this.#blocks.set(index, block);
    return grownBytes;
  }

  #cost(block: Uint8Array | undefined): number {
    if (block === undefined) return 0;
    return block === ZERO ? MARK_BYTES : this.blockBytes;
  }

  /** The block at `from` lies wholly in [from, end). */
  #isWhole(from: number, end: number): boolean {
    return from % this.blockBytes === 0 && this.#blockEnd(from) <= end;
  }

  #index(at: number): number {
    return Math.floor(at / this.blockBytes);
  }

  #blockEnd(at: number): number {
    return (this.#index(at) + 1) * this.blockBytes;
  }

  /** Where the blocks from `from` on that are only in the base end, at most `end`. */
  #endOfBase(from: number, end: number): number {
    let at = this.#blockEnd(from);
    while (at < end && !this.#blocks.has(this.#index(at))) at += this.blockBytes;
    return Math.min(at, end);
  }
}

/**
 * `memoryDisk(size)`: a disk in this process's memory, sparse: only what was written takes space. Its content belongs to
 * the source, so opening it again, by the same machine or another, finds the same data; it ends with the source.
 */
import { parseSize } from '../../base/units.js';
import type { IoVector } from '../../memory/io-vector.js';
import type { BackendDescription } from '../contract.js';
import { SECTOR_BYTES, type BlockBackend, type BlockDone, type BlockGeometry } from './contract.js';
import type { BlockOpenContext, BlockSource } from './source.js';
import { UnitStore, type FrozenUnits } from './unit-store.js';

const CHUNK_BYTES = 64 * 1024;

/** A disk in memory, before it is opened. */
export interface MemoryDisk extends BlockSource {
  /** Changes the size; the guests that use it are told. What lies beyond a smaller size is lost. */
  resize(size: number | string): void;
}

/**
 * A sparse disk in memory, all zeroes at first.
 *
 * @param size bytes, or text such as '64MiB': a positive multiple of 512
 * @throws TypeError, RangeError for a size that is none.
 * @example const scratch = memoryDisk('64MiB')
 */
export function memoryDisk(size: number | string): MemoryDisk {
  return diskOver(new MemoryStore(checkedSize(size)));
}

/** One with these contents, which are its own from now on. @throws RangeError for units of another size. */
export function filledMemoryDisk(
  sizeBytes: number,
  { unitBytes, units }: { readonly unitBytes: number; readonly units: ReadonlyMap<number, Uint8Array> },
): MemoryDisk {
  if (unitBytes !== CHUNK_BYTES) throw new RangeError(`a disk in memory has units of ${CHUNK_BYTES} bytes`);
  const store = new MemoryStore(checkedSize(sizeBytes));
  for (const [index, unit] of units) if (unit.length > 0) store.chunks.set(index, unit);
  return diskOver(store);
}

function diskOver(store: MemoryStore): MemoryDisk {
  return {
    class: 'block',
    describe: () => store.describe(),
    open: (context: BlockOpenContext) => Promise.resolve(new MemoryBackend(store, context.readOnly)),
    resize: (next) => store.resize(checkedSize(next)),
  };
}

function checkedSize(size: number | string): number {
  const bytes = parseSize(size, 'memoryDisk');
  if (bytes > 0 && bytes % SECTOR_BYTES === 0) return bytes;
  throw new RangeError(`memoryDisk: ${bytes} bytes is not a positive multiple of ${SECTOR_BYTES}`);
}

/** The content: chunks that were written to. */
class MemoryStore {
  sizeBytes: number;
  readonly opened = new Set<MemoryBackend>();
  readonly chunks = new UnitStore(CHUNK_BYTES);

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  describe(): BackendDescription {
    return { kind: 'memory', sizeBytes: this.sizeBytes, usedBytes: this.chunks.size * CHUNK_BYTES };
  }

  resize(sizeBytes: number): void {
    if (sizeBytes === this.sizeBytes) return;
    if (sizeBytes < this.sizeBytes) this.zero(sizeBytes, this.sizeBytes - sizeBytes);
    this.sizeBytes = sizeBytes;
    for (const backend of this.opened) backend.onGeometry?.(backend.geometry);
  }

  read(offset: number, data: IoVector): void {
    this.#each(offset, data.lengthBytes, (index, at, length, from) => {
      const chunk = this.chunks.get(index);
      const part = data.slice(from, length);
      if (chunk) part.copyFrom(chunk.subarray(at, at + length));
      else part.fill(0);
    });
  }

  write(offset: number, data: IoVector): void {
    this.#each(offset, data.lengthBytes, (index, at, length, from) => {
      let chunk = this.chunks.mutable(index);
      if (!chunk) this.chunks.set(index, (chunk = new Uint8Array(CHUNK_BYTES)));
      data.slice(from, length).copyTo(chunk.subarray(at, at + length));
    });
  }

  zero(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    if (lengthBytes / CHUNK_BYTES > this.chunks.size) {
      for (const index of this.chunks.keys()) {
        const start = index * CHUNK_BYTES;
        const from = Math.max(start, offset);
        const to = Math.min(start + CHUNK_BYTES, end);
        if (from < to) this.#zeroIn(index, from - start, to - from);
      }
    } else this.#each(offset, lengthBytes, (index, at, length) => this.#zeroIn(index, at, length));
  }

  #zeroIn(index: number, at: number, length: number): void {
    if (length === CHUNK_BYTES) this.chunks.delete(index);
    else this.chunks.mutable(index)?.fill(0, at, at + length);
  }

  #each(
    offset: number,
    lengthBytes: number,
    visit: (index: number, at: number, length: number, from: number) => void,
  ): void {
    for (let from = 0; from < lengthBytes;) {
      const index = Math.floor((offset + from) / CHUNK_BYTES);
      const at = offset + from - index * CHUNK_BYTES;
      const length = Math.min(CHUNK_BYTES - at, lengthBytes - from);
      visit(index, at, length, from);
      from += length;
    }
  }
}

class MemoryBackend implements BlockBackend {
  onGeometry: ((geometry: BlockGeometry) => void) | undefined;
  readonly write?: (offset: number, data: IoVector, done: BlockDone) => void;
  readonly discard?: (offset: number, lengthBytes: number, done: BlockDone) => void;
  readonly writeZeroes?: (offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone) => void;
  readonly #store: MemoryStore;

  constructor(store: MemoryStore, readOnly: boolean) {
    this.#store = store;
    store.opened.add(this);
    if (readOnly) return;
    this.write = (offset, data, done) => {
      store.write(offset, data);
      done(undefined);
    };
    this.discard = (offset, lengthBytes, done) => {
      store.zero(offset, lengthBytes);
      done(undefined);
    };
    this.writeZeroes = (offset, lengthBytes, _mayUnmap, done) => {
      store.zero(offset, lengthBytes);
      done(undefined);
    };
  }

  get geometry(): BlockGeometry {
    const { sizeBytes } = this.#store;
    return { sizeBytes, blockBytes: SECTOR_BYTES, physicalBlockBytes: SECTOR_BYTES, optimalIoBytes: 0 };
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#store.read(offset, data);
    done(undefined);
  }

  freeze(): FrozenUnits {
    return this.#store.chunks.freeze();
  }

  refreshGeometry(): Promise<BlockGeometry> {
    return Promise.resolve(this.geometry);
  }

  describe(): BackendDescription {
    return this.#store.describe();
  }

  close(): Promise<void> {
    this.#store.opened.delete(this);
    return Promise.resolve();
  }
}

/**
 * Guest memory on mappings of the addon: RAM below and above the 32-bit hole in one mapping, each range a memslot.
 * Users get copies; `window` gives devices a view, which must stay inside this process's rooms and is dead after close.
 * Writes mark user space's own dirty bitmap, since KVM's log sees only what vCPUs write.
 */
import { MemoryFlag } from '../abi/kvm.js';
import { formatGpa } from '../base/address.js';
import { VmmError } from '../base/errors.js';
import { formatSize, MiB, PAGE_SIZE } from '../base/units.js';
import { loadBinding } from '../kvm/binding.js';
import type { Vm } from '../kvm/index.js';
import type { NativeMemory } from '../kvm/native.js';
import type { CloneMembership } from './clones.js';
import type { DeviceMemory } from './device-memory.js';
import type { MemoryRange } from './guest-memory.js';
import type { Backing } from './user-fault.js';

/**
 * Views are made when they are first needed, and small: V8 counts every byte of an external buffer as pressure on its
 * heap, so a view of 4 GiB costs two full collections (30 ms measured), for a machine that touches a page of it.
 */
const VIEW_BYTES = 16 * MiB;

/** Up to here a copy byte by byte is faster than one by `set`. */
const SHORT_BYTES = 64;

/** A part of RAM that one view covers. */
interface Chunk {
  readonly gpa: number;
  readonly sizeBytes: number;
  /** Where it starts in the mapping. */
  readonly offset: number;
  bytes: Uint8Array | undefined;
}

/** What must be asked before guest memory is touched, while some of it is still in a snapshot. */
export interface PageGuard {
  /** Returns when the bytes are there. @throws VmmError ERR_PAGER when they can't be had. */
  ensure(offset: number, length: number): void;
}

export interface AddressSpaceOptions {
  readonly ranges: readonly MemoryRange[];
  readonly backing?: 'anonymous' | 'memfd';
  readonly hugePages?: boolean;
  /** The machine is one of a snapshot's clones, and may share memory with them, of its size. It is left at the end. */
  readonly clone?: CloneMembership | undefined;
}

export class AddressSpace implements DeviceMemory {
  readonly ranges: readonly MemoryRange[];
  readonly sizeBytes: number;
  readonly backing: Backing;
  readonly clone: CloneMembership | undefined;
  readonly #native: NativeMemory;
  readonly #chunks: readonly Chunk[];
  readonly #dirty: Int32Array;
  #closed = false;
  #logsDirty = false;
  #guard: PageGuard | undefined;

  /**
   * Reserves the memory; pages come when they are touched.
   *
   * @throws VmmError ERR_GUEST_MEMORY when the host refuses the mapping.
   */
  constructor(options: AddressSpaceOptions) {
    this.ranges = options.ranges;
    this.clone = options.clone;
    const store = options.clone?.store;
    const backing = options.backing ?? 'anonymous';
    this.backing = store === undefined ? backing : 'store';
    this.sizeBytes = options.ranges.reduce((sum, range) => sum + range.sizeBytes, 0);
    try {
      this.#native = new (loadBinding().addon.Memory)({
        sizeBytes: this.sizeBytes,
        backing,
        store,
        hugePages: options.hugePages ?? true,
      });
    } catch (cause) {
      options.clone?.leave();
      throw new VmmError('ERR_GUEST_MEMORY', `${formatSize(this.sizeBytes)} of guest memory could not be had`, {
        cause,
      });
    }
    const chunks: Chunk[] = [];
    let offset = 0;
    for (const range of options.ranges) {
      for (let at = 0; at < range.sizeBytes; at += VIEW_BYTES) {
        const sizeBytes = Math.min(VIEW_BYTES, range.sizeBytes - at);
        chunks.push({ gpa: range.gpa + at, sizeBytes, offset, bytes: undefined });
        offset += sizeBytes;
      }
    }
    this.#chunks = chunks;
    this.#dirty = new Int32Array(this.#native.dirtyBitmap());
  }

  /**
   * Makes every range a memslot of the machine, numbered from 0. Nothing is under way when it ends, nor when it fails. With `logDirty`
   * KVM notes from the beginning what vCPUs write: turned on later, KVM goes through all of the memory (20 ms for 4 GiB).
   */
  async attach(vm: Vm, { logDirty = false } = {}): Promise<void> {
    this.#logsDirty = logDirty;
    const flags = logDirty ? MemoryFlag.LOG_DIRTY_PAGES : 0;
    let offset = 0;
    const slots = this.ranges.map((range, slot) => {
      const set = vm.setMemorySlot(slot, range.gpa, this.#native, offset, range.sizeBytes, flags);
      offset += range.sizeBytes;
      return set;
    });
    const failed = (await Promise.allSettled(slots)).find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** Whether its memslots were made with KVM's dirty log. */
  get logsDirty(): boolean {
    return this.#logsDirty;
  }

  contains(gpa: number, length: number): boolean {
    for (const range of this.ranges) if (within(range, gpa, length)) return true;
    return false;
  }

  read(gpa: number, length: number): Uint8Array {
    if (!Number.isSafeInteger(length) || length < 0) throw new RangeError(`length: ${length} is no number of bytes`);
    this.#check(gpa, length);
    const copy = new Uint8Array(length);
    this.#each(gpa, length, (window, at) => copy.set(window, at));
    return copy;
  }

  readInto(gpa: number, target: Uint8Array): void {
    const length = target.length;
    this.#check(gpa, length);
    const chunk = this.#chunkWith(gpa, length);
    if (chunk === undefined) {
      this.#each(gpa, length, (window, at) => target.set(window, at));
      return;
    }
    const bytes = this.#view(chunk);
    const from = gpa - chunk.gpa;
    if (length > SHORT_BYTES) target.set(bytes.subarray(from, from + length));
    else for (let i = 0; i < length; i++) target[i] = bytes[from + i]!;
  }

  write(gpa: number, bytes: Uint8Array): void {
    const length = bytes.length;
    this.#check(gpa, length);
    const chunk = this.#chunkWith(gpa, length);
    if (chunk === undefined) {
      this.#each(gpa, length, (window, at) => window.set(bytes.subarray(at, at + window.length)));
    } else {
      const target = this.#view(chunk);
      const to = gpa - chunk.gpa;
      if (length > SHORT_BYTES) target.set(bytes, to);
      else for (let i = 0; i < length; i++) target[to + i] = bytes[i]!;
    }
    this.markDirty(gpa, length);
  }

  fill(gpa: number, value: number, length: number): void {
    if (!Number.isSafeInteger(length) || length < 0) throw new RangeError(`length: ${length} is no number of bytes`);
    this.#check(gpa, length);
    this.#each(gpa, length, (window) => window.fill(value));
    this.markDirty(gpa, length);
  }

  /**
   * A view of guest memory, without a copy, for devices and loaders: what is written through it must be followed by
   * `markDirty`. The guest may change it at any moment: copy first, check the copy, use the copy.
   *
   * @throws VmmError ERR_GUEST_MEMORY outside RAM, or across a boundary of views (every 16 MiB of a range).
   */
  window(gpa: number, length: number): Uint8Array {
    this.#check(gpa, length);
    const chunk = this.#chunkWith(gpa, length);
    if (!chunk) throw outside(gpa, length, 'one view');
    return this.#view(chunk).subarray(gpa - chunk.gpa, gpa - chunk.gpa + length);
  }

  view(gpa: number, length: number): Uint8Array {
    return new Uint8Array(this.#native.view(this.mappingOffset(gpa, length), length));
  }

  /**
   * Where [gpa, gpa + length) starts in the mapping, for native code that moves data past JavaScript.
   *
   * @throws VmmError ERR_GUEST_MEMORY when the range is not wholly inside one range of RAM; ERR_CLOSED.
   */
  mappingOffset(gpa: number, length: number): number {
    this.#check(gpa, length);
    return this.#offset(gpa);
  }

  /** The addon's side of the mapping. */
  get native(): NativeMemory {
    return this.#native;
  }

  /** Marks the pages of [gpa, gpa + length) in user space's dirty bitmap; of closed memory there is none. */
  markDirty(gpa: number, length: number): void {
    if (this.#closed || length === 0) return;
    // A range of RAM is one piece of the mapping, whatever its views are.
    const offset = this.#offset(gpa);
    const last = Math.floor((offset + length - 1) / PAGE_SIZE);
    for (let page = Math.floor(offset / PAGE_SIZE); page <= last; page++) {
      Atomics.or(this.#dirty, Math.floor(page / 32), 1 << (page % 32));
    }
  }

  /** Takes the dirty bits of user space, by offset into the mapping: bit 0 of the first word is its first page. */
  takeDirtyBits(): Uint32Array {
    const bits = new Uint32Array(this.#dirty.length);
    if (isAllZero(this.#dirty)) return bits;
    for (let word = 0; word < bits.length; word++) {
      if (Atomics.load(this.#dirty, word) !== 0) bits[word] = Atomics.exchange(this.#dirty, word, 0);
    }
    return bits;
  }

  /** Takes the dirty bits of user space: for each range its page numbers, ascending; the bits are cleared. */
  takeDirty(): { range: MemoryRange; pages: number[] }[] {
    let firstPage = 0;
    return this.ranges.map((range) => {
      const pages: number[] = [];
      const endPage = firstPage + range.sizeBytes / PAGE_SIZE;
      for (let word = Math.floor(firstPage / 32); word * 32 < endPage; word++) {
        // A word that two ranges share keeps the bits of the other.
        const low = Math.max(firstPage - word * 32, 0);
        const high = Math.min(endPage - word * 32, 32);
        const mask = (high === 32 ? -1 : (1 << high) - 1) & ~((1 << low) - 1);
        if ((Atomics.load(this.#dirty, word) & mask) === 0) continue;
        const taken = Atomics.and(this.#dirty, word, ~mask) & mask;
        for (let bit = low; bit < high; bit++) {
          if ((taken >>> bit) & 1) pages.push(word * 32 + bit - firstPage);
        }
      }
      firstPage = endPage;
      return { range, pages };
    });
  }

  /** From now on every access asks the guard first; undefined ends that, and then an access costs what it did before. */
  guardPages(guard: PageGuard | undefined): void {
    this.#guard = guard;
  }

  /** Detaches every view and unmaps. The machine must be closed before. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close();
    this.clone?.leave();
  }

  #check(gpa: number, length: number): void {
    if (this.#closed) throw new VmmError('ERR_CLOSED', 'guest memory: the machine was closed');
    if (!this.contains(gpa, length)) throw outside(gpa, length, 'guest memory');
    if (this.#guard !== undefined && length > 0) this.#guard.ensure(this.#offset(gpa), length);
  }

  #each(gpa: number, length: number, visit: (window: Uint8Array, at: number) => void): void {
    this.#eachChunk(gpa, length, (chunk, start, end) => {
      visit(this.#view(chunk).subarray(start - chunk.gpa, end - chunk.gpa), start - gpa);
    });
  }

  #view(chunk: Chunk): Uint8Array {
    chunk.bytes ??= new Uint8Array(this.#native.view(chunk.offset, chunk.sizeBytes));
    return chunk.bytes;
  }

  /** The chunks that [gpa, gpa + length) touches, each with its part of it. */
  #eachChunk(gpa: number, length: number, visit: (chunk: Chunk, start: number, end: number) => void): void {
    for (let index = this.#chunkIndex(gpa), end = gpa + length; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index]!;
      if (chunk.gpa >= end) return;
      visit(chunk, Math.max(gpa, chunk.gpa), Math.min(end, chunk.gpa + chunk.sizeBytes));
    }
  }

  /** Where an address of RAM is in the mapping. */
  #offset(gpa: number): number {
    let offset = 0;
    for (const range of this.ranges) {
      if (gpa < range.gpa + range.sizeBytes) return offset + gpa - range.gpa;
      offset += range.sizeBytes;
    }
    return offset;
  }

  /** The chunk that [gpa, gpa + length) of RAM is inside of; undefined where it is in more than one. */
  #chunkWith(gpa: number, length: number): Chunk | undefined {
    const chunk = this.#chunks[this.#chunkIndex(gpa)];
    return chunk && within(chunk, gpa, length) ? chunk : undefined;
  }

  /** The chunk that holds an address of RAM: ranges follow one another in the list, each cut at its own start. */
  #chunkIndex(gpa: number): number {
    let first = 0;
    for (const range of this.ranges) {
      if (gpa < range.gpa + range.sizeBytes) return first + Math.floor((gpa - range.gpa) / VIEW_BYTES);
      first += Math.ceil(range.sizeBytes / VIEW_BYTES);
    }
    return this.#chunks.length;
  }
}

const ZEROS = Buffer.alloc(16 * 1024);

/** A bitmap of 4 GiB has 32,768 words: compared as bytes they take microseconds. */
export function isAllZero(words: Int32Array | Uint32Array): boolean {
  const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length);
    if (!piece.equals(piece.length === ZEROS.length ? ZEROS : ZEROS.subarray(0, piece.length))) return false;
  }
  return true;
}

function within(range: { gpa: number; sizeBytes: number }, gpa: number, length: number): boolean {
  return Number.isSafeInteger(gpa) && gpa >= range.gpa && length >= 0 && gpa - range.gpa <= range.sizeBytes - length;
}

function outside(gpa: number, length: number, what: string): VmmError {
  const where = Number.isSafeInteger(gpa) ? formatGpa(gpa) : String(gpa);
  return new VmmError('ERR_GUEST_MEMORY', `${length} bytes at ${where} are not inside ${what}`);
}

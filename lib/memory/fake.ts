/**
 * Guest memory without a guest: DeviceMemory on plain arrays, for unit tests of loaders and devices.
 * Sparse, so that a test can have RAM above 4 GiB; it notes the pages written, as the real one's dirty bitmap does.
 */
import { gpa as toGpa } from '../base/address.js';
import { VmmError } from '../base/errors.js';
import { PAGE_SIZE } from '../base/units.js';
import type { DeviceMemory } from './device-memory.js';
import type { MemoryRange } from './guest-memory.js';

const CHUNK_BYTES = 64 * 1024;

export class FakeGuestMemory implements DeviceMemory {
  readonly ranges: readonly MemoryRange[];
  readonly sizeBytes: number;
  /** Page numbers (gpa / 4096) written since the last clear(). */
  readonly dirtyPages = new Set<number>();
  readonly #chunks = new Map<number, Uint8Array>();

  /**
   * @param ranges the RAM ranges as {gpa, sizeBytes}, in ascending order; or a size, for one range from 0.
   */
  constructor(ranges: number | readonly { readonly gpa: number; readonly sizeBytes: number }[]) {
    const list = typeof ranges === 'number' ? [{ gpa: 0, sizeBytes: ranges }] : ranges;
    this.ranges = list.map((range) => ({ gpa: toGpa(range.gpa), sizeBytes: range.sizeBytes }));
    this.sizeBytes = list.reduce((sum, range) => sum + range.sizeBytes, 0);
  }

  contains(gpa: number, length: number): boolean {
    if (!Number.isSafeInteger(gpa) || !Number.isSafeInteger(length) || length < 0) return false;
    return this.ranges.some((range) => gpa >= range.gpa && gpa + length <= range.gpa + range.sizeBytes);
  }

  read(gpa: number, length: number): Uint8Array {
    this.#check(gpa, length);
    const target = new Uint8Array(length);
    this.readInto(gpa, target);
    return target;
  }

  readInto(gpa: number, target: Uint8Array): void {
    this.#check(gpa, target.length);
    this.#walk(gpa, target.length, (chunk, at, done, length) => {
      const bytes = this.#chunks.get(chunk);
      if (bytes) target.set(bytes.subarray(at, at + length), done);
      else target.fill(0, done, done + length);
    });
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.#check(gpa, bytes.length);
    this.#walk(gpa, bytes.length, (chunk, at, done, length) => {
      this.#chunk(chunk).set(bytes.subarray(done, done + length), at);
    });
    this.markDirty(gpa, bytes.length);
  }

  fill(gpa: number, value: number, length: number): void {
    this.#check(gpa, length);
    this.#walk(gpa, length, (chunk, at, _done, part) => {
      if ((value & 0xff) !== 0 || this.#chunks.has(chunk)) this.#chunk(chunk).fill(value, at, at + part);
    });
    this.markDirty(gpa, length);
  }

  /** Inside one chunk of 64 KiB: a ring of a test stands in one. */
  view(gpa: number, length: number): Uint8Array {
    this.#check(gpa, length);
    const chunk = Math.floor(gpa / CHUNK_BYTES);
    const at = gpa - chunk * CHUNK_BYTES;
    if (at + length > CHUNK_BYTES) throw new RangeError('a view of fake memory stays inside 64 KiB');
    return this.#chunk(chunk).subarray(at, at + length);
  }

  #check(gpa: number, length: number): void {
    if (this.contains(gpa, length)) return;
    throw new VmmError('ERR_GUEST_MEMORY', `${length} bytes at 0x${gpa.toString(16)} are not in guest memory`);
  }

  #chunk(index: number): Uint8Array {
    let bytes = this.#chunks.get(index);
    if (!bytes) this.#chunks.set(index, (bytes = new Uint8Array(CHUNK_BYTES)));
    return bytes;
  }

  #walk(gpa: number, length: number, visit: (chunk: number, at: number, done: number, length: number) => void): void {
    for (let done = 0; done < length;) {
      const chunk = Math.floor((gpa + done) / CHUNK_BYTES);
      const at = gpa + done - chunk * CHUNK_BYTES;
      const part = Math.min(length - done, CHUNK_BYTES - at);
      visit(chunk, at, done, part);
      done += part;
    }
  }

  markDirty(gpa: number, length: number): void {
    if (length === 0) return;
    for (let page = Math.floor(gpa / PAGE_SIZE); page * PAGE_SIZE < gpa + length; page++) this.dirtyPages.add(page);
  }
}

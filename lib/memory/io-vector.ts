/**
 * The data of one request as a list of pieces, in order: pieces of guest memory (GuestVector) or bytes of this process
 * (HostVector). It stands between a device's queue, the providers and the I/O engine, which moves data between files
 * and guest memory without a copy in JavaScript. Pieces are checked when the vector is made, by whoever makes it.
 */
import type { DeviceMemory } from './device-memory.js';

export interface IoVector {
  readonly lengthBytes: number;
  /** The part of `lengthBytes` bytes from `fromByte` on, without a copy. @throws RangeError outside. */
  slice(fromByte: number, lengthBytes: number): IoVector;
  /** Copies the first `target.length` bytes out. @throws RangeError when there are fewer. */
  copyTo(target: Uint8Array): void;
  /** Copies `source` to the start, and marks pages dirty. @throws RangeError when it is longer than the vector. */
  copyFrom(source: Uint8Array): void;
  /** Every byte becomes `value`. */
  fill(value: number): void;
}

/** Pieces of guest memory. Each must lie inside one range of RAM: the maker has checked it. */
export class GuestVector implements IoVector {
  readonly memory: DeviceMemory;
  readonly gpas: readonly number[];
  readonly lengths: readonly number[];
  readonly lengthBytes: number;

  constructor(memory: DeviceMemory, gpas: readonly number[], lengths: readonly number[]) {
    this.memory = memory;
    this.gpas = gpas;
    this.lengths = lengths;
    let sum = 0;
    for (let i = 0; i < lengths.length; i++) sum += lengths[i]!;
    this.lengthBytes = sum;
  }

  slice(fromByte: number, lengthBytes: number): GuestVector {
    checkPart(this, fromByte, lengthBytes);
    if (fromByte === 0 && lengthBytes === this.lengthBytes) return this;
    const gpas: number[] = [];
    const lengths: number[] = [];
    this.#each(fromByte, lengthBytes, (gpa, length) => {
      gpas.push(gpa);
      lengths.push(length);
    });
    return new GuestVector(this.memory, gpas, lengths);
  }

  copyTo(target: Uint8Array): void {
    checkPart(this, 0, target.length);
    if (this.gpas.length === 1) this.memory.readInto(this.gpas[0]!, target);
    else this.#each(0, target.length, (gpa, length, at) => this.memory.readInto(gpa, target.subarray(at, at + length)));
  }

  copyFrom(source: Uint8Array): void {
    checkPart(this, 0, source.length);
    if (this.gpas.length === 1) this.memory.write(this.gpas[0]!, source);
    else this.#each(0, source.length, (gpa, length, at) => this.memory.write(gpa, source.subarray(at, at + length)));
  }

  fill(value: number): void {
    this.#each(0, this.lengthBytes, (gpa, length) => this.memory.fill(gpa, value, length));
  }

  /** For data that came in past JavaScript. */
  markDirty(): void {
    for (let i = 0; i < this.gpas.length; i++) this.memory.markDirty(this.gpas[i]!, this.lengths[i]!);
  }

  #each(fromByte: number, lengthBytes: number, visit: (gpa: number, length: number, at: number) => void): void {
    const end = fromByte + lengthBytes;
    for (let i = 0, start = 0; i < this.gpas.length && start < end; i++) {
      const next = start + this.lengths[i]!;
      const from = Math.max(start, fromByte);
      const to = Math.min(next, end);
      if (from < to) visit(this.gpas[i]! + from - start, to - from, from - fromByte);
      start = next;
    }
  }
}

/** Bytes of this process: bounce buffers and metadata. */
export class HostVector implements IoVector {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get lengthBytes(): number {
    return this.bytes.length;
  }

  slice(fromByte: number, lengthBytes: number): HostVector {
    checkPart(this, fromByte, lengthBytes);
    return new HostVector(this.bytes.subarray(fromByte, fromByte + lengthBytes));
  }

  copyTo(target: Uint8Array): void {
    checkPart(this, 0, target.length);
    target.set(this.bytes.subarray(0, target.length));
  }

  copyFrom(source: Uint8Array): void {
    checkPart(this, 0, source.length);
    this.bytes.set(source);
  }

  fill(value: number): void {
    this.bytes.fill(value);
  }
}

function checkPart(vector: IoVector, fromByte: number, lengthBytes: number): void {
  if (fromByte >= 0 && lengthBytes >= 0 && fromByte + lengthBytes <= vector.lengthBytes) return;
  throw new RangeError(`bytes ${fromByte} to ${fromByte + lengthBytes} of a vector of ${vector.lengthBytes}`);
}

/**
 * The driver's side of a split virtqueue (virtio 1.2, 2.7.13 and 2.7.14) without a guest: lays a queue out in guest
 * memory, makes chains available and collects used ones. For units, benches and fuzzers of queues and devices; what it
 * takes to break the rules is there too (`offer`, `setAvailableIndex`, `writeDescriptor`).
 */
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_DESC_BYTES, VIRTQ_USED_F_NO_NOTIFY, VirtqDescFlag } from '../abi/virtio.js';
import { alignUp } from '../base/units.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { passesEvent, splitQueueBytes, type SplitQueueOptions } from './split-queue.js';

const WORDS = VIRTQ_DESC_BYTES / 4;

/** A piece of a chain. */
export interface Piece {
  readonly gpa: number;
  readonly length: number;
  readonly writable?: boolean;
}

/** A descriptor as it stands in a table. */
export interface RawDescriptor {
  readonly gpa: number;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

export interface UsedElement {
  readonly head: number;
  readonly length: number;
}

export interface MockDriverOptions {
  readonly size: number;
  /** Where the queue is laid out, a multiple of 16; `endGpa` says where it ends. */
  readonly gpa: number;
  readonly index?: number;
  readonly eventIndex?: boolean;
  readonly indirect?: boolean;
  /** Both rings' indices at the start, for tests of the wrap at 65536. */
  readonly startIndex?: number;
}

export class MockDriver {
  readonly size: number;
  readonly endGpa: number;
  /** What a SplitQueue of this queue is made of. */
  readonly queueOptions: SplitQueueOptions;
  readonly #memory: DeviceMemory;
  readonly #eventIndex: boolean;
  readonly #descriptors: Uint32Array;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  readonly #free: number[] = [];
  /** Of each head, the descriptors of its chain. */
  readonly #chains: (number[] | undefined)[] = [];
  /** An indirect table that is being written. */
  #table = new Uint32Array(0);
  #tableBytes = new Uint8Array(0);
  /** The next entry of the available ring, and the index as last published. */
  #next: number;
  #published: number;
  #collected: number;

  constructor(memory: DeviceMemory, options: MockDriverOptions) {
    const { size, gpa } = options;
    const start = options.startIndex ?? 0;
    const bytes = splitQueueBytes(size);
    const available = gpa + bytes.descriptors;
    const used = alignUp(available + bytes.available, 4);
    this.size = size;
    this.endGpa = used + bytes.used;
    this.#memory = memory;
    this.#eventIndex = options.eventIndex ?? false;
    this.queueOptions = {
      memory,
      index: options.index ?? 0,
      size,
      descriptors: gpa,
      available,
      used,
      indirect: options.indirect ?? false,
      eventIndex: this.#eventIndex,
      ...(start === 0 ? {} : { state: { availableIndex: start, usedIndex: start, inFlight: [] } }),
    };
    memory.fill(gpa, 0, this.endGpa - gpa);
    const table = memory.view(gpa, bytes.descriptors);
    const availableView = memory.view(available, bytes.available);
    const usedView = memory.view(used, bytes.used);
    this.#descriptors = new Uint32Array(table.buffer, table.byteOffset, table.byteLength / 4);
    this.#available = new Uint16Array(availableView.buffer, availableView.byteOffset, availableView.byteLength / 2);
    this.#used = new Uint16Array(usedView.buffer, usedView.byteOffset, usedView.byteLength / 2);
    this.#usedElements = new Uint32Array(usedView.buffer, usedView.byteOffset + 4, 2 * size);
    for (let index = size - 1; index >= 0; index--) this.#free.push(index);
    this.#next = this.#published = this.#collected = start;
    this.setAvailableIndex(start);
    Atomics.store(this.#used, 1, start);
    if (this.#eventIndex) {
      Atomics.store(this.#available, 2 + size, start);
      Atomics.store(this.#used, 2 + 4 * size, start);
    }
  }

  get freeDescriptors(): number {
    return this.#free.length;
  }

  /** Puts a chain of direct descriptors into the ring; its head, or undefined when too few are free. Then `publish`. */
  add(pieces: readonly Piece[]): number | undefined {
    if (pieces.length === 0 || pieces.length > this.#free.length) return undefined;
    const indices = new Array<number>(pieces.length);
    for (let i = 0; i < pieces.length; i++) indices[i] = this.#free.pop()!;
    for (let i = 0; i < pieces.length; i++) {
      const piece = pieces[i]!;
      const last = i === pieces.length - 1;
      const flags = (piece.writable === true ? VirtqDescFlag.WRITE : 0) | (last ? 0 : VirtqDescFlag.NEXT);
      put(this.#descriptors, indices[i]!, piece.gpa, piece.length, flags, last ? 0 : indices[i + 1]!);
    }
    return this.#enter(indices);
  }

  /** As add, with the pieces in an indirect table at `tableGpa`, behind those that stand directly in the queue. */
  addIndirect(pieces: readonly Piece[], tableGpa: number, direct: readonly Piece[] = []): number | undefined {
    // The next table mostly has as many entries: a driver in a bench makes no object for it.
    if (this.#table.length !== pieces.length * WORDS) {
      this.#table = new Uint32Array(pieces.length * WORDS);
      this.#tableBytes = new Uint8Array(this.#table.buffer);
    }
    for (let i = 0; i < pieces.length; i++) {
      const { gpa, length, writable } = pieces[i]!;
      const next = i < pieces.length - 1 ? VirtqDescFlag.NEXT : 0;
      put(this.#table, i, gpa, length, (writable === true ? VirtqDescFlag.WRITE : 0) | next, i + 1);
    }
    this.#memory.write(tableGpa, this.#tableBytes);
    const head = this.add([...direct, { gpa: tableGpa, length: pieces.length * VIRTQ_DESC_BYTES }]);
    if (head === undefined) return undefined;
    const at = this.#chains[head]!.at(-1)! * 4 + 3;
    this.#descriptors[at] = this.#descriptors[at]! | VirtqDescFlag.INDIRECT;
    return head;
  }

  /** Publishes what was added; true when the device wants to be notified of it. */
  publish(): boolean {
    const before = this.#published;
    if (this.#next === before) return false;
    this.#published = this.#next;
    Atomics.store(this.#available, 1, this.#next);
    if (this.#eventIndex) return passesEvent(Atomics.load(this.#used, 2 + 4 * this.size), this.#next, before);
    return (Atomics.load(this.#used, 0) & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /** Takes the used chains; their descriptors are free again. */
  collect(): UsedElement[] {
    const elements: UsedElement[] = [];
    for (const end = Atomics.load(this.#used, 1); this.#collected !== end;) {
      const at = (this.#collected % this.size) * 2;
      const head = this.#usedElements[at]!;
      elements.push({ head, length: this.#usedElements[at + 1]! });
      const indices = this.#chains[head];
      this.#chains[head] = undefined;
      if (indices !== undefined) for (const index of indices) this.#free.push(index);
      this.#collected = (this.#collected + 1) & 0xffff;
    }
    return elements;
  }

  /** Asks for an interrupt at the next used chain; true when one came in the meantime (then collect). */
  enableInterrupts(): boolean {
    if (this.#eventIndex) Atomics.store(this.#available, 2 + this.size, this.#collected);
    else Atomics.store(this.#available, 0, 0);
    return Atomics.load(this.#used, 1) !== this.#collected;
  }

  disableInterrupts(): void {
    if (!this.#eventIndex) Atomics.store(this.#available, 0, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  /** Puts any head into the ring. */
  offer(head: number): void {
    this.#available[2 + (this.#next % this.size)] = head;
    this.#next = (this.#next + 1) & 0xffff;
  }

  setAvailableIndex(index: number): void {
    Atomics.store(this.#available, 1, index & 0xffff);
  }

  /** The used index as the device published it. */
  get usedIndex(): number {
    return Atomics.load(this.#used, 1);
  }

  writeDescriptor(index: number, descriptor: RawDescriptor): void {
    const { gpa, length, flags = 0, next = 0 } = descriptor;
    put(this.#descriptors, index, gpa, length, flags, next);
  }

  /** Writes an indirect table. */
  writeTable(tableGpa: number, descriptors: readonly RawDescriptor[]): void {
    const words = new Uint32Array(descriptors.length * WORDS);
    for (const [index, { gpa, length, flags = 0, next = 0 }] of descriptors.entries()) {
      put(words, index, gpa, length, flags, next);
    }
    this.#memory.write(tableGpa, new Uint8Array(words.buffer));
  }

  #enter(indices: number[]): number {
    const head = indices[0]!;
    this.#chains[head] = indices;
    this.offer(head);
    return head;
  }
}

function put(words: Uint32Array, index: number, gpa: number, length: number, flags: number, next: number): void {
  const at = index * WORDS;
  words[at] = gpa % 2 ** 32;
  words[at + 1] = Math.floor(gpa / 2 ** 32);
  words[at + 2] = length;
  words[at + 3] = (next << 16) | flags;
}

/**
 * A split virtqueue, the device's side (virtio 1.2, 2.7), with indirect descriptors and event index.
 *
 *   descriptor table            driver writes, device reads     chain-reader.ts
 *   available ring   flags idx ring[size] used_event            driver writes, device reads
 *   used ring        flags idx {id len}[size] avail_event       device writes, driver reads
 *
 * Order: `idx` of the available ring is loaded with acquire before an entry is read; `idx` of the used ring is stored
 * with release after the entries are written. Each side stores its own word before it loads the other's (published
 * index against used_event, avail_event against available index), which takes a full barrier between the two: Atomics
 * are sequentially consistent, and an Atomics.store is that barrier (an xchg on x86-64).
 */
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_BYTES,
  VIRTQ_MAX_SIZE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_F_NO_NOTIFY,
  VirtqAlign,
} from '../abi/virtio.js';
import { formatGpa } from '../base/address.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { ChainReader } from './chain-reader.js';
import type { DescriptorChain, Virtqueue, VirtqueueState } from './virtqueue.js';

export interface SplitQueueOptions {
  readonly memory: DeviceMemory;
  readonly index: number;
  /** As the driver chose it: a power of two. */
  readonly size: number;
  /** Guest physical addresses of the three parts, as the driver wrote them: any number. */
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIndex: boolean;
  /**
   * The most descriptors in a chain: the device's queue size, where the driver chose a smaller one for the ring (Linux
   * halves it when it finds no memory, and then still builds indirect tables as long as the device's limits allow).
   */
  readonly maxDescriptors?: number | undefined;
  /** Go on from here instead of from an empty queue. */
  readonly state?: VirtqueueState | undefined;
}

/** Sizes of the three parts in bytes (2.7). */
export function splitQueueBytes(size: number): { descriptors: number; available: number; used: number } {
  return {
    descriptors: VIRTQ_DESC_BYTES * size,
    available: 6 + 2 * size,
    used: 6 + VIRTQ_USED_ELEM_BYTES * size,
  };
}

/** Whether going from index `before` to `now` passes the entry `event`, after which the other side wants to hear (2.7.7). */
export function passesEvent(event: number, now: number, before: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
}

/** Places of the rings' words. */
const FLAGS = 0;
const IDX = 1;
const RING = 2;

export class SplitQueue implements Virtqueue {
  readonly index: number;
  readonly size: number;
  held = false;
  readonly #memory: DeviceMemory;
  readonly #usedGpa: number;
  readonly #usedBytes: number;
  readonly #eventIndex: boolean;
  readonly #reader: ChainReader;
  /** The available ring, by 16-bit words. */
  readonly #available: Uint16Array;
  /** The used ring, by 16-bit words, and its elements by 32-bit words. */
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  readonly #availEventAt: number;
  readonly #usedEventAt: number;
  readonly #mask: number;
  /** 1 for each head that was popped and not pushed. */
  readonly #taken: Uint8Array;
  #again: number[];
  #broken: string | undefined;
  #inFlight = 0;
  /** The next entry to pop, and the driver's index as last seen. */
  #next: number;
  #seen: number;
  /** The next used entry to write, the index as the driver sees it, and up to where it was asked for an interrupt. */
  #pushed: number;
  #exposed: number;
  #published: number;

  /** A queue whose size or addresses can't be is born broken. */
  constructor(options: SplitQueueOptions) {
    const { memory, size } = options;
    this.index = options.index;
    this.size = size;
    this.#memory = memory;
    this.#eventIndex = options.eventIndex;
    this.#usedGpa = options.used;
    this.#broken = whyRefused(options);
    const usable = this.#broken === undefined;
    const bytes = splitQueueBytes(usable ? size : 0);
    const table = usable ? memory.view(options.descriptors, bytes.descriptors) : new Uint8Array(0);
    const available = usable ? memory.view(options.available, bytes.available) : new Uint8Array(bytes.available);
    const used = usable ? memory.view(options.used, bytes.used) : new Uint8Array(8);
    this.#usedBytes = bytes.used;
    this.#available = new Uint16Array(available.buffer, available.byteOffset, available.byteLength / 2);
    this.#used = new Uint16Array(used.buffer, used.byteOffset, bytes.used / 2);
    this.#usedElements = new Uint32Array(used.buffer, used.byteOffset + 4, usable ? 2 * size : 0);
    this.#usedEventAt = RING + size;
    this.#availEventAt = RING + 4 * size;
    this.#mask = size - 1;
    this.#taken = new Uint8Array(usable ? size : 0);
    this.#reader = new ChainReader({
      memory,
      table: new Uint32Array(table.buffer, table.byteOffset, table.byteLength / 4),
      maxDescriptors: Math.max(size, options.maxDescriptors ?? size),
      indirect: options.indirect,
    });
    this.#next = this.#seen = (options.state?.availableIndex ?? 0) & 0xffff;
    this.#pushed = this.#exposed = this.#published = (options.state?.usedIndex ?? 0) & 0xffff;
    this.#again = [...(options.state?.inFlight ?? [])];
  }

  get broken(): string | undefined {
    return this.#broken;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  pop(): DescriptorChain | undefined {
    if (this.held) return undefined;
    if (this.#again.length > 0) return this.#take(this.#again.shift()!);
    if (this.#next === this.#seen && !this.#look()) return undefined;
    const chain = this.#take(this.#available[RING + (this.#next & this.#mask)]!);
    if (chain !== undefined) this.#next = (this.#next + 1) & 0xffff;
    return chain;
  }

  push(head: number, writtenBytes: number): void {
    if (this.#taken[head] !== 1) throw new RangeError(`queue ${this.index}: no chain with head ${head} is in flight`);
    this.#taken[head] = 0;
    this.#inFlight--;
    if (this.#broken !== undefined) return;
    const at = (this.#pushed & this.#mask) * 2;
    this.#usedElements[at] = head;
    // 2.7.8: may be less than was written, and 4 GiB are one byte more than the field holds.
    this.#usedElements[at + 1] = Math.min(writtenBytes, 0xffffffff);
    this.#pushed = (this.#pushed + 1) & 0xffff;
  }

  expose(): void {
    if (this.#broken !== undefined || this.#pushed === this.#exposed) return;
    this.#exposed = this.#pushed;
    Atomics.store(this.#used, IDX, this.#exposed);
    // Once for entries and index: nothing of ours is written to the ring behind this.
    this.#memory.markDirty(this.#usedGpa, this.#usedBytes);
  }

  publish(): boolean {
    this.expose();
    if (this.#broken !== undefined || this.#exposed === this.#published) return false;
    const before = this.#published;
    const now = (this.#published = this.#exposed);
    if (this.#eventIndex) return passesEvent(Atomics.load(this.#available, this.#usedEventAt), now, before);
    return (Atomics.load(this.#available, FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }

  enableNotifications(): boolean {
    if (this.#broken !== undefined || this.held) return false;
    if (this.#eventIndex) this.#store(this.#availEventAt, this.#next);
    else this.#store(FLAGS, 0);
    return this.#look();
  }

  disableNotifications(): void {
    // With an event index there is nothing to write: the driver notifies once it passes avail_event, which stays behind.
    if (this.#broken === undefined && !this.held && !this.#eventIndex) this.#store(FLAGS, VIRTQ_USED_F_NO_NOTIFY);
  }

  state(): VirtqueueState {
    // A broken queue publishes no more; its state is only looked at.
    if (this.#pushed !== this.#published && this.#broken === undefined) {
      throw new Error(`queue ${this.index}: used chains are not published`);
    }
    const inFlight = [...this.#again];
    for (let head = 0; head < this.#taken.length; head++) if (this.#taken[head] === 1) inFlight.push(head);
    return { availableIndex: this.#next, usedIndex: this.#published, inFlight };
  }

  /** Loads the driver's index; true when chains wait. */
  #look(): boolean {
    if (this.#broken !== undefined) return false;
    const index = Atomics.load(this.#available, IDX);
    const waiting = (index - this.#next) & 0xffff;
    if (waiting > this.size) {
      this.#broken = `the available index went from ${this.#seen} to ${index} in a queue of ${this.size}`;
      return false;
    }
    this.#seen = index;
    return waiting !== 0;
  }

  #take(head: number): DescriptorChain | undefined {
    if (this.#broken !== undefined) return undefined;
    if (head >= this.size) {
      this.#broken = `head ${head} in a queue of ${this.size}`;
      return undefined;
    }
    // Bounds what is in flight, too.
    if (this.#taken[head] !== 0) {
      this.#broken = `head ${head} was made available while it is in flight`;
      return undefined;
    }
    const chain = this.#reader.read(head);
    if (typeof chain === 'string') {
      this.#broken = chain;
      return undefined;
    }
    this.#taken[head] = 1;
    this.#inFlight++;
    return chain;
  }

  #store(at: number, value: number): void {
    Atomics.store(this.#used, at, value);
    this.#memory.markDirty(this.#usedGpa + 2 * at, 2);
  }
}

/** Why a queue of this size at these addresses can't be. */
function whyRefused(options: SplitQueueOptions): string | undefined {
  const { size, memory } = options;
  if (!Number.isInteger(size) || size < 1 || size > VIRTQ_MAX_SIZE || (size & (size - 1)) !== 0) {
    return `a queue size of ${size}`;
  }
  const bytes = splitQueueBytes(size);
  const parts = [
    ['descriptor table', options.descriptors, bytes.descriptors, VirtqAlign.DESCRIPTORS],
    ['available ring', options.available, bytes.available, VirtqAlign.AVAILABLE],
    ['used ring', options.used, bytes.used, VirtqAlign.USED],
  ] as const;
  for (const [name, gpa, length, alignment] of parts) {
    if (gpa % alignment !== 0) return `the ${name} at ${formatGpa(gpa)} is not aligned to ${alignment}`;
    if (!memory.contains(gpa, length)) return `the ${name} at ${formatGpa(gpa)} is not in RAM`;
  }
  return undefined;
}

/**
 * What fuzzers of queues and devices share: guest memory that changes while it is read and refuses a device's write
 * outside what the driver gave, and chains from well-formed to absurd.
 */
import { VirtqDescFlag } from '../abi/virtio.js';
import { Random } from '../base/fuzzing.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { GuestVector, type IoVector } from '../memory/io-vector.js';
import type { MockDriver, Piece } from './mock-driver.js';
import type { DescriptorChain, Virtqueue, VirtqueueState } from './virtqueue.js';

/** Two ranges of RAM with a hole, as fuzzers use them: queues in the first 64 KiB, data anywhere. */
const RANGES = [
  { gpa: 0, sizeBytes: 0x20000 },
  { gpa: 0x40000, sizeBytes: 0x20000 },
];
const END = 0x60000;

export class FuzzMemory extends FakeGuestMemory {
  random = new Random(0);
  /** Says whether the device may write there now; undefined while the driver writes. */
  mayWrite: ((gpa: number, length: number) => boolean) | undefined;

  constructor() {
    super(RANGES);
  }

  /** As fresh, so that a seed tells all of an execution. */
  renew(seed: number): void {
    this.mayWrite = undefined;
    this.random = new Random(seed ^ 0x5bd1e995);
    for (const { gpa, sizeBytes } of this.ranges) super.fill(gpa, 0, sizeBytes);
    this.dirtyPages.clear();
  }

  /** Another vCPU changes what was just read: whoever reads it twice gets something else. */
  override readInto(gpa: number, target: Uint8Array): void {
    super.readInto(gpa, target);
    if (this.mayWrite === undefined || target.length === 0 || !this.random.chance(4)) return;
    const at = gpa + this.random.below(target.length);
    super.write(at, Uint8Array.of(this.random.word()));
  }

  override write(gpa: number, bytes: Uint8Array): void {
    this.#check(gpa, bytes.length);
    super.write(gpa, bytes);
  }

  override fill(gpa: number, value: number, length: number): void {
    this.#check(gpa, length);
    super.fill(gpa, value, length);
  }

  #check(gpa: number, length: number): void {
    if (this.mayWrite?.(gpa, length) === false) {
      throw new Error(`the device wrote ${length} bytes at 0x${gpa.toString(16)}, which nobody gave it`);
    }
  }
}

/** A queue that knows which chains the device has, and checks what it is handed and what it hands back. */
export class WatchedQueue implements Virtqueue {
  readonly chains = new Map<number, DescriptorChain>();
  popped = 0;
  pushed = 0;
  readonly #queue: Virtqueue;

  constructor(queue: Virtqueue) {
    this.#queue = queue;
  }

  get index(): number {
    return this.#queue.index;
  }

  get size(): number {
    return this.#queue.size;
  }

  get held(): boolean {
    return this.#queue.held;
  }

  set held(held: boolean) {
    this.#queue.held = held;
  }

  get broken(): string | undefined {
    return this.#queue.broken;
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  mayWrite(gpa: number, length: number): boolean {
    for (const { writable } of this.chains.values()) {
      for (const [index, start] of writable.gpas.entries()) {
        if (gpa >= start && gpa + length <= start + writable.lengths[index]!) return true;
      }
    }
    return false;
  }

  pop(): DescriptorChain | undefined {
    const chain = this.#queue.pop();
    if (chain === undefined) return undefined;
    if (this.chains.has(chain.head)) throw new Error(`head ${chain.head} was popped twice`);
    checkVector(chain.readable);
    checkVector(chain.writable);
    if (chain.readable.lengthBytes + chain.writable.lengthBytes > 2 ** 32) throw new Error('more than 4 GiB');
    this.chains.set(chain.head, chain);
    this.popped++;
    if (this.inFlight > this.size) throw new Error(`${this.inFlight} in flight of ${this.size}`);
    return chain;
  }

  push(head: number, writtenBytes: number): void {
    const chain = this.chains.get(head);
    if (chain === undefined) throw new Error(`head ${head} was not popped`);
    if (writtenBytes > chain.writable.lengthBytes) throw new Error(`${writtenBytes} bytes used of fewer`);
    this.chains.delete(head);
    this.pushed++;
    this.#queue.push(head, writtenBytes);
  }

  expose(): void {
    this.#queue.expose();
  }

  publish(): boolean {
    return this.#queue.publish();
  }

  enableNotifications(): boolean {
    return this.#queue.enableNotifications();
  }

  disableNotifications(): void {
    this.#queue.disableNotifications();
  }

  state(): VirtqueueState {
    return this.#queue.state();
  }
}

/** Pieces inside RAM, each in one range of it. */
export function checkVector(vector: IoVector): void {
  if (!(vector instanceof GuestVector)) throw new Error('no vector of guest memory');
  let sum = 0;
  for (const [index, gpa] of vector.gpas.entries()) {
    const length = vector.lengths[index]!;
    sum += length;
    const isInside = RANGES.some((range) => gpa >= range.gpa && gpa + length <= range.gpa + range.sizeBytes);
    if (!isInside || length <= 0) throw new Error(`a piece of ${length} bytes at 0x${gpa.toString(16)}`);
  }
  if (sum !== vector.lengthBytes) throw new Error(`${vector.lengthBytes} bytes in pieces of ${sum}`);
}

const LENGTHS = [0, 1, 7, 8, 15, 16, 17, 20, 32, 512, 513, 1024, 4096, 0x10000, 0x7fffffff, 0xffffffff];

/** A piece: mostly where it may be, now and then at an edge or nowhere. */
export function randomPiece(random: Random): Piece {
  const length = random.chance(8) ? random.of(LENGTHS) : random.of(LENGTHS.slice(1, 13));
  const writable = random.chance(2);
  if (!random.chance(24)) return { gpa: 0x40000 + random.below(0x1f000), length, writable };
  const edge = random.of([0, 0x20000, 0x40000, END, 2 ** 32, 2 ** 52, 2 ** 53, 2 ** 64 - 4096]);
  return { gpa: Math.max(0, edge - random.below(3) * length), length, writable };
}

/** Something that no driver does: in a descriptor, in the ring, in its index. */
export function breakSomething(random: Random, driver: MockDriver): void {
  const { size } = driver;
  switch (random.below(8)) {
    case 0:
      return driver.offer(random.below(size + 2));
    case 1:
      return driver.setAvailableIndex(random.word());
    case 2: {
      const { INDIRECT, NEXT } = VirtqDescFlag;
      const flags = INDIRECT | (random.chance(6) ? NEXT : 0);
      const length = random.chance(3) ? random.word() : 16 * random.below(size + 2);
      return driver.writeDescriptor(random.below(size), { gpa: 0x50000, length, flags });
    }
    case 3: {
      const table = Array.from({ length: 1 + random.below(size) }, () => randomDescriptor(random, size));
      return driver.writeTable(0x50000, table);
    }
    default:
      return driver.writeDescriptor(random.below(size), randomDescriptor(random, size));
  }
}

function randomDescriptor(random: Random, size: number) {
  const { gpa, length } = randomPiece(random);
  const flags = random.chance(10) ? random.below(16) : random.below(4);
  return { gpa, length, flags, next: random.chance(10) ? random.below(0x10000) : random.below(size) };
}

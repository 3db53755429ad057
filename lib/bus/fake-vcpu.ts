/**
 * The port side of a vCPU without KVM, for unit tests and fuzzers of device models: `in` and `out` go through
 * published, posted and ignored ports as the addon's run loop does, else to the bus. It counts what would have left the
 * guest for JavaScript.
 */
import type { AddressBus } from './address-bus.js';
import type { FastRegisters, ReadQueue } from './device.js';

/** As many as the addon's queue holds (ReadQueueLayout.CAPACITY of lib/kvm/native.ts). */
const QUEUE_BYTES = 256;

class FakeReadQueue implements ReadQueue {
  readonly bytes: number[] = [];
  taken = 0;

  offer(bytes: ArrayLike<number>, from: number, to: number): number {
    const count = Math.min(to - from, QUEUE_BYTES - this.bytes.length);
    for (let index = 0; index < count; index++) this.bytes.push(bytes[from + index]!);
    return count;
  }

  takenBytes(): number {
    const taken = this.taken;
    this.taken = 0;
    return taken;
  }

  clear(): void {
    this.bytes.length = 0;
  }
}

export class FakeVcpu implements FastRegisters {
  /** Accesses that reached JavaScript while the vCPU waited, and those that the thread answered by itself. */
  scriptExits = 0;
  nativeExits = 0;

  #bus: AddressBus | undefined;
  readonly #published = new Map<number, number>();
  readonly #posting = new Set<number>();
  readonly #ignored = new Set<number>();
  readonly #queues = new Map<number, FakeReadQueue>();
  #ring: { port: number; value: number }[] = [];

  /** The devices are built with this as their FastRegisters, then put on a bus, which comes here. */
  attach(bus: AddressBus): void {
    this.#bus = bus;
  }

  publish(port: number, value: number): void {
    if (!Number.isInteger(value) || value < 0 || value > 0xff) throw new RangeError(`publish ${value}`);
    this.#published.set(port, value);
  }

  withdraw(port: number): void {
    this.#published.delete(port);
  }

  post(port: number, on: boolean): void {
    if (on) this.#posting.add(port);
    else this.#posting.delete(port);
  }

  ignore(port: number, on: boolean): void {
    if (on) this.#ignored.add(port);
    else this.#ignored.delete(port);
  }

  queue(port: number): ReadQueue {
    const queue = new FakeReadQueue();
    this.#queues.set(port, queue);
    return queue;
  }

  inb(port: number): number {
    return this.#in(port, 1);
  }

  inw(port: number): number {
    return this.#in(port, 2);
  }

  inl(port: number): number {
    return this.#in(port, 4);
  }

  outb(port: number, value: number): void {
    if (this.#ignored.has(port) || this.#posting.has(port)) {
      this.nativeExits++;
      if (this.#posting.has(port)) this.#ring.push({ port, value });
      return;
    }
    this.#out(port, 1, value);
  }

  outw(port: number, value: number): void {
    this.#out(port, 2, value);
  }

  outl(port: number, value: number): void {
    this.#out(port, 4, value);
  }

  /** `rep ins`: `count` elements of `size` bytes. */
  ins(port: number, size: number, count: number): Uint8Array {
    return this.#access(port, size, count, false, new Uint8Array(size * count));
  }

  /** `rep outs`. */
  outs(port: number, size: number, data: Uint8Array): void {
    this.#access(port, size, data.length / size, true, data.slice());
  }

  /** JavaScript gets to the posted ring, as it does before each exit and when the doorbell rings. */
  drain(): void {
    const ring = this.#ring;
    this.#ring = [];
    for (const { port, value } of ring) throwFault(this.bus.write(port, 1, value));
  }

  get bus(): AddressBus {
    if (this.#bus === undefined) throw new Error('no bus is attached');
    return this.#bus;
  }

  #in(port: number, size: number): number {
    const queue = this.#queues.get(port);
    if (size === 1 && queue !== undefined && queue.bytes.length > 0) {
      this.nativeExits++;
      queue.taken++;
      return queue.bytes.shift()!;
    }
    const published = this.#published.get(port);
    if (size === 1 && published !== undefined) {
      this.nativeExits++;
      return published;
    }
    const data = this.#access(port, size, 1, false, new Uint8Array(4).subarray(0, size));
    return data.reduce((value, byte, index) => value + byte * 2 ** (8 * index), 0);
  }

  #out(port: number, size: number, value: number): void {
    const data = Uint8Array.from({ length: size }, (_, index) => value >>> (8 * index));
    this.#access(port, size, 1, true, data);
  }

  #access(port: number, size: number, count: number, isWrite: boolean, data: Uint8Array): Uint8Array {
    this.scriptExits++;
    this.drain();
    throwFault(this.bus.access(port, size, count, isWrite, data));
    return data;
  }
}

function throwFault(result: ReturnType<AddressBus['write']>): void {
  if (result === undefined) return;
  if (result instanceof Promise) throw new Error('the fake vCPU does not wait');
  throw new Error(`${result.device} at 0x${result.address.toString(16)} failed`, { cause: result.cause });
}

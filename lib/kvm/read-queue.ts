/**
 * JavaScript's end of a read queue: bytes that one-byte reads of a port take one by one on the vCPU's thread. Its owner
 * learns only afterwards what was taken, so a byte whose reading has an effect does not belong in it.
 */
import { ReadQueueLayout } from './native.js';

const { CAPACITY, DATA, HEAD, PORT, STRIDE, TAIL } = ReadQueueLayout;

export class PortReadQueue {
  readonly #head: Uint32Array;
  readonly #tail: Uint32Array;
  readonly #data: Uint8Array;
  /** The tail up to which takenBytes() has reported. */
  #reported = 0;

  /** @throws RangeError when every queue of the machine has a port. */
  constructor(queues: ArrayBuffer, port: number) {
    for (let at = 0; at < queues.byteLength; at += STRIDE) {
      if (Atomics.compareExchange(new Uint32Array(queues, at + PORT, 1), 0, 0, port) !== 0) continue;
      this.#head = new Uint32Array(queues, at + HEAD, 1);
      this.#tail = new Uint32Array(queues, at + TAIL, 1);
      this.#data = new Uint8Array(queues, at + DATA, CAPACITY);
      return;
    }
    throw new RangeError(`no read queue is left for port 0x${port.toString(16)}`);
  }

  /** Puts bytes[from] to bytes[to - 1] behind those that wait; how many there was room for. */
  offer(bytes: ArrayLike<number>, from: number, to: number): number {
    if (this.#data.length === 0) return 0; // detached by close()
    const tail = Atomics.load(this.#tail, 0);
    let head = Atomics.load(this.#head, 0);
    if (((head - tail) | 0) < 0) head = tail;
    const count = Math.min(to - from, CAPACITY - ((head - tail) | 0));
    for (let index = 0; index < count; index++) {
      Atomics.store(this.#data, (head + index) % CAPACITY, bytes[from + index]!);
    }
    Atomics.store(this.#head, 0, (head + count) >>> 0);
    return count;
  }

  /** How many bytes reads have taken since the last call. */
  takenBytes(): number {
    if (this.#data.length === 0) return 0;
    const tail = Atomics.load(this.#tail, 0);
    const taken = (tail - this.#reported) >>> 0;
    this.#reported = tail;
    return taken;
  }

  /** Takes back what waits. A read under way may still take one, which takenBytes() will tell. */
  clear(): void {
    if (this.#data.length > 0) Atomics.store(this.#head, 0, Atomics.load(this.#tail, 0));
  }
}

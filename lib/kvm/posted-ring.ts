/**
 * The JavaScript end of a machine's posted ring: writes that vCPU threads took without waiting, and what KVM collected
 * in coalesced zones. Read in order, in batches, before any later exit of the machine is served.
 */
import { PostedControl, PostedEntry, type NativeVm } from './native.js';

const WORD_BYTES = 4;
const WORD_RANGE = 2 ** 32;

/** One posted write. The object is reused: take the values out of it during the call. */
export class PostedAccess {
  space: 'port' | 'mmio' = 'port';
  address = 0;
  sizeBytes = 0;
  /** The value's halves, zero-extended. */
  low = 0;
  high = 0;

  /** Exact only up to 2^53; `wide` has all 64 bits. */
  get value(): number {
    return this.high * WORD_RANGE + this.low;
  }

  get wide(): bigint {
    return (BigInt(this.high) << 32n) | BigInt(this.low);
  }
}

export class PostedRing {
  readonly #native: NativeVm;
  readonly #head: Uint32Array;
  readonly #tail: Uint32Array;
  readonly #waiters: Int32Array;
  /** Little endian, as is every machine that has this KVM. */
  readonly #words: Uint32Array;
  readonly #access = new PostedAccess();
  handler: (access: PostedAccess) => void = () => undefined;

  constructor(native: NativeVm) {
    this.#native = native;
    this.#head = new Uint32Array(native.postedControl, PostedControl.HEAD, 1);
    this.#tail = new Uint32Array(native.postedControl, PostedControl.TAIL, 1);
    this.#waiters = new Int32Array(native.postedControl, PostedControl.WAITERS, 1);
    this.#words = new Uint32Array(native.postedRing);
  }

  /** Hands every entry to the handler. An entry's place is given back when its values have been taken. */
  drain(): void {
    if (this.#head.length === 0) return; // detached by close()
    const access = this.#access;
    let tail = Atomics.load(this.#tail, 0);
    let moved = false;
    while (tail !== Atomics.load(this.#head, 0)) {
      this.#take((tail % PostedEntry.CAPACITY) * PostedEntry.STRIDE);
      tail = (tail + 1) >>> 0;
      Atomics.store(this.#tail, 0, tail);
      moved = true;
      this.handler(access);
    }
    if (moved && Atomics.load(this.#waiters, 0) !== 0) this.#native.postedConsumed();
  }

  #take(at: number): void {
    const access = this.#access;
    access.space = this.#word(at + PostedEntry.SPACE) === 0 ? 'port' : 'mmio';
    const address = at + PostedEntry.ADDRESS;
    access.address = this.#word(address + WORD_BYTES) * WORD_RANGE + this.#word(address);
    access.sizeBytes = this.#word(at + PostedEntry.SIZE_BYTES);
    access.low = this.#word(at + PostedEntry.VALUE);
    access.high = this.#word(at + PostedEntry.VALUE + WORD_BYTES);
  }

  #word(at: number): number {
    return this.#words[at / WORD_BYTES]!;
  }
}

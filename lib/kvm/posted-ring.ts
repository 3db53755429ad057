/**
 * The JavaScript end of a machine's posted ring: writes that vCPU threads took without waiting, and what KVM collected
 * in coalesced zones. Read in order, in batches, before any later exit of the machine is served.
 */
import { PostedControl, PostedEntry, type NativeVm } from './native.js';

/** One posted write. The object is reused: take the values out of it during the call. */
export interface PostedAccess {
  space: 'port' | 'mmio';
  address: number;
  sizeBytes: number;
  /** Zero-extended. Exact only up to 2^53; `wide` has all 64 bits. */
  value: number;
  wide: bigint;
}

export class PostedRing {
  readonly #native: NativeVm;
  readonly #head: Uint32Array;
  readonly #tail: Uint32Array;
  readonly #waiters: Int32Array;
  readonly #entries: DataView;
  readonly #access: PostedAccess = { space: 'port', address: 0, sizeBytes: 0, value: 0, wide: 0n };
  handler: (access: PostedAccess) => void = () => undefined;

  constructor(native: NativeVm) {
    this.#native = native;
    this.#head = new Uint32Array(native.postedControl, PostedControl.HEAD, 1);
    this.#tail = new Uint32Array(native.postedControl, PostedControl.TAIL, 1);
    this.#waiters = new Int32Array(native.postedControl, PostedControl.WAITERS, 1);
    this.#entries = new DataView(native.postedRing);
  }

  /** Hands every entry to the handler. An entry's place is given back once its handler has returned. */
  drain(): void {
    if (this.#head.length === 0) return; // detached by close()
    const access = this.#access;
    let tail = Atomics.load(this.#tail, 0);
    let moved = false;
    while (tail !== Atomics.load(this.#head, 0)) {
      const at = (tail % PostedEntry.CAPACITY) * PostedEntry.STRIDE;
      access.space = this.#entries.getUint32(at + PostedEntry.SPACE, true) === 0 ? 'port' : 'mmio';
      access.address = Number(this.#entries.getBigUint64(at + PostedEntry.ADDRESS, true));
      access.sizeBytes = this.#entries.getUint32(at + PostedEntry.SIZE_BYTES, true);
      access.wide = this.#entries.getBigUint64(at + PostedEntry.VALUE, true);
      access.value = Number(access.wide);
      tail = (tail + 1) >>> 0;
      Atomics.store(this.#tail, 0, tail);
      moved = true;
      this.handler(access);
    }
    if (moved && Atomics.load(this.#waiters, 0) !== 0) this.#native.postedConsumed();
  }
}

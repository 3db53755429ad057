/**
 * Who programmed channel 0, and with what: the guest's own reload value, what is loaded now, and what a reading of the channel
 * says about it. It tells the guest's loads from the host's by the reload mark (pit-port.ts) and changes nothing.
 *
 *   own == in force            nominal, as the guest left it
 *   in force is the host's     a count with a mark; with an expiry native code puts another back by itself
 */
import { markFor } from './counts.js';
import type { PitChange, PitReading } from './pit-port.js';

export interface Load {
  readonly count: number;
  readonly latch: number;
}

export interface Expiry {
  readonly atNs: bigint;
  readonly load: Load;
}

/** What a reading means. */
export type ReadingKind =
  /** As it was left. */
  | 'same'
  /** The guest is between the two bytes of a reload. */
  | 'mid-write'
  /** The guest wrote a control word while a count of the host's is in force, and has not loaded yet. */
  | 'control-word'
  /** Native code has put back what it was told to. */
  | 'expired'
  | 'reprogrammed';

export class GuestProgram {
  #own: Load & { readonly mode: number };
  #inForce: Load;
  #expiry: Expiry | undefined;

  constructor(reading: PitReading) {
    this.#own = { count: reading.count, mode: reading.mode, latch: reading.latch };
    this.#inForce = this.#own;
  }

  /** The guest's own reload value, its mode, and the latch that its load left. */
  get own(): Load & { readonly mode: number } {
    return this.#own;
  }

  get inForce(): Load {
    return this.#inForce;
  }

  /** The count in force was loaded by the host. */
  get isOurs(): boolean {
    return this.#inForce.count !== this.#own.count || this.#inForce.latch !== this.#own.latch;
  }

  get expiry(): Expiry | undefined {
    return this.#expiry;
  }

  /** What channel 0 must hold for a change to be safe. */
  get expected(): PitChange['expected'] {
    return { count: this.#inForce.count, mode: this.#own.mode, latch: this.#inForce.latch };
  }

  classify(reading: PitReading, nowNs: bigint): ReadingKind {
    if (reading.midWrite) return 'mid-write';
    const holds = (load: Load) => reading.count === load.count && reading.latch === load.latch;
    if (reading.mode === this.#own.mode) {
      if (holds(this.#inForce)) return 'same';
      if (this.#expiry && nowNs >= this.#expiry.atNs && holds(this.#expiry.load)) return 'expired';
    } else if (this.isOurs && holds(this.#inForce)) {
      return 'control-word';
    }
    return 'reprogrammed';
  }

  /** The guest's load is taken as its own. */
  adopt(reading: PitReading): void {
    this.#own = { count: reading.count, mode: reading.mode, latch: reading.latch };
    this.#inForce = this.#own;
    this.#expiry = undefined;
  }

  /** Only the mode is new: the guest's reload value stays what it was, until it loads another. */
  adoptMode(mode: number): void {
    this.#own = { ...this.#own, mode };
  }

  /** The host has loaded; undefined leaves the count and sets the expiry anew. */
  loaded(load: Load | undefined, expiry: Expiry | undefined): void {
    if (load) this.#inForce = load;
    this.#expiry = expiry;
  }

  /** A load of the host's with a mark of its own; the guest's own count gets back exactly what the guest left. */
  loadFor(count: number): Load {
    if (count === this.#own.count) return { count, latch: this.#own.latch };
    if (count === this.#inForce.count) return this.#inForce;
    return { count, latch: markFor([count, this.#own.count], this.#own.latch) };
  }

  /** A saved programming: `inForce` is what the host had loaded, if it had. */
  static restored(own: Load & { readonly mode: number }, inForce: Load): GuestProgram {
    const program = new GuestProgram({ ...own, midWrite: false });
    program.#inForce = inForce;
    return program;
  }
}

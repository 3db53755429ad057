/**
 * The guest's own clock as the source of delivered time (row T5): a counter in guest memory of a known width and rate, such as
 * the BIOS tick count at 0x46c. It tells what the guest made of its ticks, also where acknowledgements are not seen.
 * Guest memory is untrusted: a counter that jumps further than any catch-up explains was set by the guest, and is taken anew.
 */
import type { FeedbackOptions } from './configuration.js';
import { PIT_HZ, UNITS_PER_NS } from './counts.js';

/** Reads guest memory; throws where there is none. */
export type ReadMemory = (gpa: number, length: number) => Uint8Array;

export interface FeedbackStep {
  /** What the guest's clock gained since the last look, in the ledger's units. */
  readonly units: bigint;
  /** The guest has set its clock: nothing is known of this step. */
  readonly jumped: boolean;
}

const MICRO = 1_000_000n;
/** A guest's clock may run this much faster than real time while it is caught up, and lag this far behind a burst. */
const MOST_SPEED = 16n;
const SLACK_NS = 2_000_000_000n;

export class FeedbackClock {
  readonly #options: FeedbackOptions;
  readonly #read: ReadMemory;
  readonly #modulus: bigint;
  #last: bigint | undefined;
  /** All counts so far, so that what a division leaves over is never lost. */
  #counts = 0n;
  #jumps = 0;

  constructor(options: FeedbackOptions, read: ReadMemory) {
    this.#options = options;
    this.#read = read;
    this.#modulus = options.wrapsAt === undefined ? 1n << BigInt(8 * options.widthBytes) : BigInt(options.wrapsAt);
  }

  /** How often the guest has set its clock. */
  get jumps(): number {
    return this.#jumps;
  }

  /** The counter is taken as it stands at the next look, which gains nothing. */
  restart(): void {
    this.#last = undefined;
  }

  /**
   * What was gained since the last look, `elapsedNs` ago. `tickUnits` is the worth of a programmed tick.
   *
   * @throws what the injected `read` throws, when the address is no memory.
   */
  look(elapsedNs: bigint, tickUnits: bigint): FeedbackStep {
    const now = this.#counter();
    const last = this.#last;
    this.#last = now;
    if (last === undefined) return { units: 0n, jumped: false };
    const counts = (((now - last) % this.#modulus) + this.#modulus) % this.#modulus;
    const units = this.#unitsOf(counts, tickUnits);
    const most = (elapsedNs * MOST_SPEED + SLACK_NS) * UNITS_PER_NS + tickUnits;
    if (units > most) {
      this.#jumps++;
      return { units: 0n, jumped: true };
    }
    return { units, jumped: false };
  }

  #unitsOf(counts: bigint, tickUnits: bigint): bigint {
    const { rateHz } = this.#options;
    if (rateHz === 'programmed') return counts * tickUnits;
    // A second is PIT_HZ * 1e9 units; the rate is exact to a millionth of a hertz.
    const microHz = BigInt(Math.round(rateHz * 1e6));
    const unitsAt = (total: bigint) => (total * BigInt(PIT_HZ) * 1_000_000_000n * MICRO) / microHz;
    const before = unitsAt(this.#counts);
    this.#counts += counts;
    return unitsAt(this.#counts) - before;
  }

  #counter(): bigint {
    const bytes = this.#read(this.#options.gpa, this.#options.widthBytes);
    let value = 0n;
    for (let index = this.#options.widthBytes - 1; index >= 0; index--) {
      value = (value << 8n) | BigInt(bytes[index] ?? 0);
    }
    return value;
  }
}

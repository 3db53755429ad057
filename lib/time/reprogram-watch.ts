/**
 * Counts how often a guest reprograms. Each time costs the ledger some certainty, so a guest that does it without pause is
 * left alone until it has been quiet for a while; after a single one the controller looks more often.
 */

/** This many seen within this time are too many: more than every other look, for seconds. */
const TOO_MANY = 120;
const WITHIN_NS = 3_000_000_000n;
const QUIET_NS = 1_000_000_000n;

export class ReprogramWatch {
  #timesNs: bigint[] = [];
  #isFlooded = false;

  get isFlooded(): boolean {
    return this.#isFlooded;
  }

  /** Notes one. True when it is one too many. */
  note(nowNs: bigint): boolean {
    this.#timesNs = this.#timesNs.filter((timeNs) => nowNs - timeNs < WITHIN_NS);
    this.#timesNs.push(nowNs);
    if (this.#isFlooded || this.#timesNs.length < TOO_MANY) return false;
    this.#isFlooded = true;
    return true;
  }

  /** True when quiet has returned just now. */
  calm(nowNs: bigint): boolean {
    if (!this.#isFlooded || this.isRecent(nowNs)) return false;
    this.#isFlooded = false;
    this.#timesNs = [];
    return true;
  }

  /** The last one is less than a second ago. */
  isRecent(nowNs: bigint): boolean {
    const last = this.#timesNs.at(-1);
    return last !== undefined && nowNs - last < QUIET_NS;
  }
}

/**
 * The storm monitor (row T6): it holds ticks fired against ticks acknowledged in a sliding window of catch-up. A guest that
 * takes noticeably fewer than were fired, though it runs and has the line unmasked, is swamped: then its measured capacity
 * bounds the rate, with room left for its own work. The bound recovers slowly, and never falls to nominal, so that a guest
 * that can take a little more than nominal is still caught up.
 */

/** One look of the controller at a guest that was caught up the whole time. */
export interface StormSample {
  readonly windowNs: bigint;
  readonly fired: bigint;
  readonly delivered: bigint;
  /** The vCPUs had the host's CPU, and IRQ 0 was not masked: what was not taken is the guest's own doing. */
  readonly ableToTake: boolean;
  /** Ticks were missed, but the vCPU halted and had time to spare: the host fired late, and the guest is well. */
  readonly isIdle?: boolean;
  readonly nominalHz: number;
  readonly firingHz: number;
}

/** The window that is judged, and the ticks that must have been fired in it. */
const WINDOW_NS = 100_000_000n;
const LEAST_FIRED = 8n;
/** Fewer acknowledged than this share of the fired: swamped. More than that one: well. */
const SWAMPED = 0.9;
const WELL = 0.97;
/** What is left of the measured capacity for ticks; the rest is for the guest's own work. */
const SHARE = 0.7;
/** The least speed above nominal that a bound leaves. */
const LEAST_SPEED = 1 + 1 / 32;
/** After this much well time the bound rises by an eighth. */
const RECOVERY_NS = 500_000_000n;
const RECOVERY = 1.125;
/** Only time at this share of the bound or more counts as well. */
const NEAR = 0.9;
/** No profile goes beyond this speed, so a bound above it is none. */
const MOST_SPEED = 8;

export class StormMonitor {
  #samples: StormSample[] = [];
  #limitHz = Number.POSITIVE_INFINITY;
  #wellNs = 0n;
  #storms = 0;
  #isActive = false;

  /** Interrupts a second that the guest can be given; infinite while it keeps up. */
  get limitHz(): number {
    return this.#limitHz;
  }

  /** A bound is in force. */
  get active(): boolean {
    return this.#isActive;
  }

  /** How often a guest was found swamped. */
  get storms(): number {
    return this.#storms;
  }

  /** Judges one look. True when the guest has just been found swamped. */
  observe(sample: StormSample): boolean {
    if (!sample.ableToTake) {
      this.#samples = [];
      if (sample.isIdle === true) this.#recover(sample);
      return false;
    }
    this.#samples.push(sample);
    const { windowNs, fired, delivered } = sum(this.#samples);
    const share = fired === 0n ? 1 : Number(delivered) / Number(fired);
    if (share >= WELL) this.#recover(sample);
    if (windowNs < WINDOW_NS || fired < LEAST_FIRED) return false;
    // One tick may be under way at the end of a window.
    if (Number(delivered + 1n) / Number(fired) < SWAMPED) {
      this.#backOff(delivered, windowNs, sample);
      return true;
    }
    while (sum(this.#samples.slice(1)).windowNs >= WINDOW_NS) this.#samples.shift();
    return false;
  }

  /** An episode is over: the window begins anew, the bound stays and goes on recovering in the next. */
  endEpisode(): void {
    this.#samples = [];
    this.#wellNs = 0n;
  }

  /** The guest has programmed another rate; what it can take a second stays true, what was counted does not. */
  forgetWindow(): void {
    this.#samples = [];
  }

  #backOff(delivered: bigint, windowNs: bigint, { nominalHz, firingHz }: StormSample): void {
    const capacityHz = (Number(delivered) * 1e9) / Number(windowNs);
    const halfTheExtraHz = (firingHz + nominalHz) / 2;
    this.#limitHz = Math.max(LEAST_SPEED * nominalHz, Math.min(SHARE * capacityHz, halfTheExtraHz, this.#limitHz));
    this.#storms++;
    this.#isActive = true;
    this.#samples = [];
    this.#wellNs = 0n;
  }

  #recover({ windowNs, firingHz, nominalHz }: StormSample): void {
    // A rate well below the bound says nothing about the bound.
    if (!this.#isActive || firingHz < NEAR * this.#limitHz) return;
    this.#wellNs += windowNs;
    if (this.#wellNs < RECOVERY_NS) return;
    this.#wellNs = 0n;
    this.#limitHz *= RECOVERY;
    if (this.#limitHz < MOST_SPEED * nominalHz) return;
    this.#limitHz = Number.POSITIVE_INFINITY;
    this.#isActive = false;
  }
}

function sum(samples: readonly StormSample[]): { windowNs: bigint; fired: bigint; delivered: bigint } {
  const total = { windowNs: 0n, fired: 0n, delivered: 0n };
  for (const sample of samples) {
    total.windowNs += sample.windowNs;
    total.fired += sample.fired;
    total.delivered += sample.delivered;
  }
  return total;
}

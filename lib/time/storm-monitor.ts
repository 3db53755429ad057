/**
 * The storm monitor (row T6): it holds ticks fired against ticks acknowledged in a sliding window of catch-up. A guest that
 * takes noticeably fewer than were fired, though it runs and has the line unmasked, is swamped: then its measured capacity
 * bounds the rate, with room left for its own work. The bound recovers slowly, and never falls to nominal, so that a guest
 * that can take a little more than nominal is still caught up.
 *
 * Noticeably fewer means: than it takes of its nominal rate. Where the host's CPUs are themselves taken away, ticks are lost
 * in the same share at every rate; a lower rate would spare the guest nothing and never pay its debt.
 */

/** One look of the controller at a guest that fired at one rate. */
export interface StormSample {
  /** Without the time in which the vCPU had no CPU; neither is what was fired then. */
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

/** Up to this speed the rate is as good as nominal: nobody is swamped by it, and it tells what the guest takes usually. */
const AS_NOMINAL = 1 + 1 / 16;
/** For so long that is taken to hold at other rates; then, if it was not all, it is looked at anew. */
const USUAL_NS = 4_000_000_000n;
/** The window that is judged, and the ticks that must have been fired in it. */
const WINDOW_NS = 100_000_000n;
/** Where ticks are lost all the time, chance has a part in how many: then so many windows are one. */
const LONG_WINDOW = 4n;
const LEAST_FIRED = 8n;
/** Fewer acknowledged than this share of the usual: swamped. More than that one: well. */
const SWAMPED = 0.9;
const WELL = 0.97;
/**
 * The same where ticks are lost at the nominal rate too. Of each gap of the CPU's one tick is only late, which makes more
 * of a low rate than of a high one.
 */
const SWAMPED_BESIDES = 0.8;
const WELL_BESIDES = 0.9;
/** What is left of the measured capacity for ticks; the rest is for the guest's own work. */
const SHARE = 0.7;
/** The least speed above nominal that a bound leaves. */
const LEAST_SPEED = 1 + 1 / 32;
/**
 * After this much well time the bound rises: by an eighth at first, then by twice as much each time, since a guest that goes
 * on being well was held back by something that is over.
 */
const RECOVERY_NS = 500_000_000n;
const FIRST_RISE = 1 / 8;
const GREATEST_RISE = 1;
/** Only time at this share of the bound or more counts as well. */
const NEAR = 0.9;
/** No profile goes beyond this speed, so a bound above it is none. */
const MOST_SPEED = 8;

export class StormMonitor {
  #samples: StormSample[] = [];
  #limitHz = Number.POSITIVE_INFINITY;
  #wellNs = 0n;
  #rise = FIRST_RISE;
  #storms = 0;
  #isActive = false;
  #isRaised = false;
  /** The share of the fired that the guest takes at its nominal rate, and how long that was not seen. */
  #usualShare = 1;
  #unseenNs = 2n * USUAL_NS;
  /** What it took when it was last found swamped. */
  #stormShare = 0;
  /** The bound while it is looked at anew. */
  #lookAgainHz: number | undefined;

  /** Interrupts a second that the guest can be given; infinite while it keeps up. */
  get limitHz(): number {
    return this.#lookAgainHz ?? this.#limitHz;
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
    const isRaised = sample.firingHz > AS_NOMINAL * sample.nominalHz;
    if (isRaised !== this.#isRaised) this.#samples = [];
    this.#isRaised = isRaised;
    this.#samples.push(sample);
    const { windowNs, fired, delivered } = sum(this.#samples);
    const share = fired === 0n ? 1 : Number(delivered) / Number(fired);
    const losesUsually = (isRaised ? this.#usualShare : share) < WELL;
    if (!isRaised || share >= (losesUsually ? WELL_BESIDES : WELL) * this.#usualShare) this.#recover(sample);
    this.#unseenNs += sample.windowNs;
    const isStale = this.#unseenNs > USUAL_NS;
    if (isRaised && losesUsually && isStale) this.#lookAgain(sample);
    const enoughNs = losesUsually ? LONG_WINDOW * WINDOW_NS : WINDOW_NS;
    if (windowNs < enoughNs || fired < LEAST_FIRED) return false;
    // One tick may be under way at the end of a window.
    const shareAtMost = Math.min(1, Number(delivered + 1n) / Number(fired));
    if (!isRaised) {
      this.#seeUsual(isStale ? shareAtMost : (shareAtMost + this.#usualShare) / 2);
    } else if (this.#isSwamped(shareAtMost)) {
      // Nobody is accused before it is known what the guest takes without.
      if (isStale) this.#lookAgain(sample);
      else this.#backOff(shareAtMost, Number(delivered) / this.#usualShare, windowNs, sample);
      return !isStale;
    }
    while (sum(this.#samples.slice(1)).windowNs >= enoughNs) this.#samples.shift();
    return false;
  }

  /** An episode is over: the window begins anew, the bound stays and goes on recovering in the next. */
  endEpisode(): void {
    this.#lookAgainHz = undefined;
    this.#samples = [];
    this.#wellNs = 0n;
  }

  /** The guest has programmed another rate; what it can take a second stays true, what was counted does not. */
  forgetWindow(): void {
    this.#lookAgainHz = undefined;
    this.#usualShare = 1;
    this.#unseenNs = 2n * USUAL_NS;
    this.#samples = [];
  }

  #isSwamped(share: number): boolean {
    return share < (this.#usualShare < WELL ? SWAMPED_BESIDES : SWAMPED) * this.#usualShare;
  }

  /** Fires little more than nominal until it is known what the guest takes then. */
  #lookAgain({ nominalHz }: StormSample): void {
    this.#lookAgainHz = LEAST_SPEED * nominalHz;
  }

  #seeUsual(share: number): void {
    this.#usualShare = share;
    this.#unseenNs = 0n;
    this.#lookAgainHz = undefined;
    this.#samples = [];
    // What it took in the storm is what it takes without: there was none.
    if (this.#isActive && !this.#isSwamped(this.#stormShare)) this.#lift();
  }

  #backOff(share: number, delivered: number, windowNs: bigint, { nominalHz, firingHz }: StormSample): void {
    this.#stormShare = share;
    const capacityHz = (delivered * 1e9) / Number(windowNs);
    const halfTheExtraHz = (firingHz + nominalHz) / 2;
    this.#limitHz = Math.max(LEAST_SPEED * nominalHz, Math.min(SHARE * capacityHz, halfTheExtraHz, this.#limitHz));
    this.#storms++;
    this.#isActive = true;
    this.#samples = [];
    this.#wellNs = 0n;
    this.#rise = FIRST_RISE;
  }

  #recover({ windowNs, firingHz, nominalHz }: StormSample): void {
    // A rate well below the bound says nothing about the bound.
    if (!this.#isActive || firingHz < NEAR * this.#limitHz) return;
    this.#wellNs += windowNs;
    if (this.#wellNs < RECOVERY_NS) return;
    this.#wellNs = 0n;
    this.#limitHz *= 1 + this.#rise;
    this.#rise = Math.min(2 * this.#rise, GREATEST_RISE);
    if (this.#limitHz >= MOST_SPEED * nominalHz) this.#lift();
  }

  #lift(): void {
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

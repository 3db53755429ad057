/**
 * Whether acknowledged ticks can be counted at all. With AMD AVIC the end of an edge interrupt does not trap, so the counter
 * stays dead although the guest takes its ticks. A source that fires for a while and counts nothing, with the line unmasked
 * and a vCPU running, is unavailable: nobody may catch up on it.
 *
 *   untested --ticks--> alive --silence--> unavailable --ticks, after a quarantine--> alive
 *       \----------------silence--------------/
 *
 * While it is unavailable the kernel's reinjection is on, which makes KVM inhibit AVIC and may bring the counter to life. That
 * proves nothing for later, so each quarantine is four times as long as the one before.
 */

export type SourceState = 'untested' | 'alive' | 'unavailable';

export interface SourceSample {
  readonly windowNs: bigint;
  /** Ticks fired in the window, and acknowledged ones. */
  readonly fired: bigint;
  readonly delivered: bigint;
}

/** How long an untested source may be silent, and one that was heard: a guest may well close its interrupts for a while. */
const SILENCE = { untested: { ticks: 20n, ns: 100_000_000n }, alive: { ticks: 100n, ns: 2_000_000_000n } };
const FIRST_QUARANTINE_NS = 1_000_000_000n;
const LONGEST_QUARANTINE_NS = 3_600_000_000_000n;

export class SourceHealth {
  #state: SourceState;
  #silentNs = 0n;
  #silentTicks = 0n;
  #quarantineNs = FIRST_QUARANTINE_NS;
  #quarantinedNs = 0n;

  /** `heard`: it was alive where the guest was restored from. */
  constructor(heard = false) {
    this.#state = heard ? 'alive' : 'untested';
  }

  get state(): SourceState {
    return this.#state;
  }

  /** How long nothing was acknowledged while the PIT fired. */
  get silentNs(): bigint {
    return this.#silentNs;
  }

  /** Nothing was acknowledged since this many ticks were fired. */
  get silentTicks(): bigint {
    return this.#silentTicks;
  }

  /**
   * Judges one window of periodic firing. `ableToTake` is called only when it matters: the line is unmasked, and a vCPU
   * ran. True when the state has changed.
   */
  observe(sample: SourceSample, ableToTake: () => boolean): boolean {
    const before = this.#state;
    if (this.#state === 'unavailable') this.#quarantinedNs += sample.windowNs;
    if (sample.delivered > 0n) {
      this.#silentNs = 0n;
      this.#silentTicks = 0n;
      if (this.#state !== 'unavailable' || this.#quarantinedNs >= this.#quarantineNs) this.#revive();
    } else if (this.#state !== 'unavailable') {
      this.#silentNs += sample.windowNs;
      this.#silentTicks += sample.fired;
      const allowed = SILENCE[this.#state];
      if (this.#silentNs >= allowed.ns && this.#silentTicks >= allowed.ticks) {
        if (ableToTake()) this.#state = 'unavailable';
        // Not taken for a reason: the test starts over, but it stays known that nothing was heard.
        this.#silentTicks = 0n;
      }
    }
    return this.#state !== before;
  }

  /** Nothing is fired any more, or at another rate: silence so far proves nothing. */
  restart(): void {
    this.#silentNs = 0n;
    this.#silentTicks = 0n;
  }

  #revive(): void {
    if (this.#state === 'unavailable') {
      this.#quarantinedNs = 0n;
      this.#quarantineNs *= 4n;
      if (this.#quarantineNs > LONGEST_QUARANTINE_NS) this.#quarantineNs = LONGEST_QUARANTINE_NS;
    }
    this.#state = 'alive';
  }
}

/**
 * Why ticks were lost (row T3): each control period's loss is split, in this order, into what the pause of the machine, the
 * host's scheduling, and the guest's own masking explain; the rest was fired at a running guest and not acknowledged.
 * It explains and never changes what is owed.
 */
import { maxBigint, minBigint } from './counts.js';

export const LOSS_CAUSES = ['paused', 'masked', 'notRunning', 'notAcknowledged'] as const;
export type LossCause = (typeof LOSS_CAUSES)[number];

/** For one cause: ticks of the periods then in force, and what they were worth in ns. */
export interface Loss {
  readonly ticks: bigint;
  readonly ns: bigint;
}

export interface LossWindow {
  readonly windowNs: bigint;
  /** How much of the window the machine was paused. */
  readonly pausedNs: bigint;
  readonly fired: bigint;
  readonly delivered: bigint;
  /** The time between two fired ticks. */
  readonly firingPeriodNs: bigint;
  /** What a tick is worth to the guest. */
  readonly tickNs: bigint;
}

/** What is looked up only when something was lost. */
export interface LossConditions {
  readonly masked: boolean | undefined;
  /** How long the vCPU that takes IRQ 0 had no host CPU though it wanted it. */
  readonly starvedNs: bigint;
}

/** A tick in service and one pending are late, not lost: a window must miss more than that. */
const UNDER_WAY = 1n;

export class LossCauses {
  readonly #losses = new Map<LossCause, { ticks: bigint; ns: bigint }>();
  #missing = 0n;
  /** Of the window before: time without a CPU that explained nothing in it. */
  #spareNs = 0n;

  /** Splits a window's loss. `conditions` is called only if something was lost. The lost ticks are the result. */
  observe(window: LossWindow, conditions: () => LossConditions): bigint {
    this.#missing = maxBigint(0n, this.#missing + window.fired - window.delivered);
    const lost = this.#missing - UNDER_WAY;
    // Ticks are counted a little before CPU time, and between the two may lie a gap whose ticks the next window misses.
    const spareNs = this.#spareNs;
    this.#spareNs = 0n;
    if (lost <= 0n) return 0n;
    this.#missing = UNDER_WAY;
    let rest = lost;
    const take = (cause: LossCause, ticks: bigint) => {
      const taken = minBigint(rest, ticks);
      rest -= taken;
      this.#add(cause, taken, window.tickNs);
    };
    const inTime = (ns: bigint) => (ns + window.firingPeriodNs - 1n) / window.firingPeriodNs;
    take('paused', inTime(window.pausedNs));
    if (rest > 0n) {
      const { masked, starvedNs } = conditions();
      if (masked === true) take('masked', rest);
      this.#spareNs = maxBigint(0n, starvedNs - rest * window.firingPeriodNs);
      take('notRunning', inTime(starvedNs));
      take('notRunning', inTime(spareNs));
      take('notAcknowledged', rest);
    }
    return lost;
  }

  /** The firing restarts, by a load or a stand-down: nothing is under way. */
  restart(): void {
    this.#missing = 0n;
    this.#spareNs = 0n;
  }

  /** What each cause has cost so far. */
  get losses(): Readonly<Record<LossCause, Loss>> {
    const of = (cause: LossCause): Loss => ({ ...(this.#losses.get(cause) ?? { ticks: 0n, ns: 0n }) });
    return {
      paused: of('paused'),
      masked: of('masked'),
      notRunning: of('notRunning'),
      notAcknowledged: of('notAcknowledged'),
    };
  }

  #add(cause: LossCause, ticks: bigint, tickNs: bigint): void {
    if (ticks === 0n) return;
    const loss = this.#losses.get(cause) ?? { ticks: 0n, ns: 0n };
    this.#losses.set(cause, { ticks: loss.ticks + ticks, ns: loss.ns + ticks * tickNs });
  }
}

/**
 * Carries out what was decided: compares it with what channel 0 holds and asks the port for a change only where they differ. One
 * change is under way at a time. It keeps who programmed the channel (guest-program.ts) and whether the kernel reinjects.
 */
import { kernelPeriodNs, minBigint } from './counts.js';
import { GuestProgram } from './guest-program.js';
import type { PitChange, PitOutcome, PitPort } from './pit-port.js';

export interface Wanted {
  readonly count: number;
  readonly reinject: boolean;
  readonly expiryNs: bigint | undefined;
  /** What fires nominally: native code loads it when the expiry passes. */
  readonly nominalCount: number;
  /** How long a load may wait for a tick, so that it comes just after one. */
  readonly waitForTickNs: bigint;
}

export interface SteeringListener {
  /** A change was carried out or not, just now; a further one may be asked for. */
  onOutcome(change: PitChange, outcome: PitOutcome): void;
  onFailed(error: unknown): void;
}

/** No rate but nominal lasts longer than this without being confirmed: five control periods. */
export const MAX_EXPIRY_NS = 250_000_000n;

export class PitSteering {
  readonly #port: PitPort;
  readonly #listener: SteeringListener;
  program: GuestProgram;
  #underWay: Promise<void> | undefined;
  #reinject: boolean | undefined;
  #changes = 0;

  constructor(port: PitPort, listener: SteeringListener) {
    this.#port = port;
    this.#listener = listener;
    this.program = new GuestProgram({ count: 0, mode: 0, latch: 0, midWrite: false });
  }

  /** Settles when the change that is under way has. */
  get underWay(): Promise<void> | undefined {
    return this.#underWay;
  }

  /** KVM's default is to reinject. */
  get reinjects(): boolean {
    return this.#reinject ?? true;
  }

  get changes(): number {
    return this.#changes;
  }

  /** Asks for what differs, if anything does. */
  steer(nowNs: bigint, wanted: Wanted): void {
    const { program } = this;
    const { count, reinject, expiryNs } = wanted;
    const { inForce, expiry } = program;
    const target = program.loadFor(count);
    const loads = target.count !== inForce.count || target.latch !== inForce.latch;
    const leftNs = expiry === undefined ? undefined : expiry.atNs - nowNs;
    const renews = expiryNs !== undefined && this.#isWorthRenewing(expiryNs, leftNs, count);
    const switches = reinject !== this.#reinject;
    if (!loads && !renews && !switches) return;
    // A change without an expiry ends the one before, so one that still runs is taken along.
    const kept =
      !loads && expiry && leftNs !== undefined && leftNs > 0n ? { afterNs: leftNs, load: expiry.load } : undefined;
    const asked = expiryNs === undefined ? kept : { afterNs: expiryNs, load: program.loadFor(wanted.nominalCount) };
    this.#underWay = this.#carryOut({
      expected: program.expected,
      waitForTickNs: loads ? wanted.waitForTickNs : 0n,
      ...(loads ? { load: target } : {}),
      ...(switches ? { reinject } : {}),
      ...(asked ? { expiry: asked } : {}),
    });
  }

  /** Puts the guest's own reload value back, when what is under way is over. */
  async putBack(): Promise<void> {
    await this.#underWay;
    if (!this.program.isOurs) return;
    const { count, latch } = this.program.own;
    await this.#carryOut({ expected: this.program.expected, load: { count, latch }, waitForTickNs: 0n });
  }

  /** What an applied change has made of the channel. */
  applied(change: PitChange, atNs: bigint): void {
    this.#changes++;
    const { expiry } = change;
    this.program.loaded(change.load, expiry && { atNs: atNs + expiry.afterNs, load: expiry.load });
    this.#reinject = change.reinject ?? this.#reinject;
  }

  async #carryOut(change: PitChange): Promise<void> {
    try {
      const outcome = await this.#port.change(change);
      this.#underWay = undefined;
      this.#listener.onOutcome(change, outcome);
    } catch (error) {
      this.#underWay = undefined;
      this.#listener.onFailed(error);
    }
  }

  /** An expiry is moved when it would come too late, or so early that the next look might not be in time. */
  #isWorthRenewing(expiryNs: bigint, leftNs: bigint | undefined, count: number): boolean {
    if (leftNs === undefined) return true;
    const slackNs = kernelPeriodNs(count, this.#port.minPeriodNs) / 2n;
    return expiryNs < leftNs - slackNs || leftNs < minBigint(expiryNs - slackNs, MAX_EXPIRY_NS / 2n);
  }
}

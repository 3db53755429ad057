/**
 * What a policy is told and what it answers: a pure function from the state of a guest's time to how its PIT shall fire.
 * No clock, no PIT and no memory of its own: all that it knows of the past stands in its input, so that the same input gives
 * the same decision, and the controller may call it as often as it likes. Rows T4 and T10; policy-guard.ts checks answers.
 */
import type { PitBounds } from './configuration.js';

export type PolicyPhase = 'nominal' | 'catch-up' | 'slow-down';

/** The ledger's numbers at `nowNs`. Ticks are of the programmed period. */
export interface LedgerView {
  readonly expectedTicks: bigint;
  readonly deliveredTicks: bigint;
  readonly forgivenTicks: bigint;
  /** Rounded down; negative when the guest is ahead. */
  readonly owedTicks: bigint;
  readonly owedUnits: bigint;
  /** What is owed in the host's time: at timeScale 2 a virtual second is half a second. */
  readonly owedNs: bigint;
}

export interface PolicyInput {
  /** Monotonic; only differences mean something. */
  readonly nowNs: bigint;
  readonly ledger: LedgerView;
  /** What the guest programmed, and how it is fired when nothing is owed. */
  readonly nominal: {
    readonly programmedCount: number;
    readonly programmedHz: number;
    /** The count that fires the nominal rate: the programmed one, unless timeScale is not 1. */
    readonly count: number;
    /** The time of the host's that a tick is worth. */
    readonly periodNs: bigint;
    readonly hz: number;
  };
  /** How the PIT fires now. */
  readonly firing: {
    readonly count: number;
    readonly periodNs: bigint;
    /** Since the last tick was fired; undefined when a load of the guest's has hidden it. */
    readonly sinceTickNs: bigint | undefined;
    /** Until native code restores the nominal rate; undefined when it won't. */
    readonly expiresInNs: bigint | undefined;
  };
  /** Since the last look. */
  readonly recent: { readonly windowNs: bigint; readonly fired: bigint; readonly delivered: bigint };
  /** No tick was acknowledged for some periods: nobody knows whether a higher rate would help. */
  readonly silent: boolean;
  readonly episode: {
    readonly phase: PolicyPhase;
    /** The highest speed of this episode so far, in nominal rates; 1 outside. */
    readonly speed: number;
    readonly startedNs: bigint | undefined;
  };
  /** From the storm monitor: interrupts a second that the guest can be given; infinite when it keeps up. */
  readonly storm: { readonly limitHz: number; readonly active: boolean };
  readonly limits: PitBounds & {
    readonly minPeriodNs: bigint;
    readonly minCount: number;
    readonly maxCount: number;
    /** False once a guest has shown that it takes a slowed PIT for a broken one. */
    readonly slowDown: boolean;
    readonly controlPeriodNs: bigint;
    readonly maxExpiryNs: bigint;
  };
}

export interface PolicyDecision {
  readonly phase: PolicyPhase;
  /** The reload value to fire with; or the period, which is rounded up to the next count. */
  readonly count?: number;
  readonly periodNs?: bigint;
  /** The kernel's own reinjection. */
  readonly reinject: boolean;
  /** Whole ticks to give up. Default 0n; no more than are owed. */
  readonly forgiveTicks?: bigint;
  /** Why ticks are forgiven: 'give-up' is reported as an event. */
  readonly forgiveReason?: 'give-up' | 'discarded';
  /** After this time native code restores the nominal rate by itself. Wanted by every count but the nominal one. */
  readonly expiryNs?: bigint;
}

export type PitPolicy = (input: PolicyInput) => PolicyDecision;

export function nominalDecision(input: PolicyInput, reinject: boolean): PolicyDecision {
  return { phase: 'nominal', count: input.nominal.count, reinject };
}

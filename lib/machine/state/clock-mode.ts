/**
 * What becomes of the time between a snapshot and its restore, row S10 of US20080022032A1 with it. One gap for all of a guest's clocks:
 * what kvmclock went on by, so that they agree with each other afterwards.
 *
 * | mode     | kvmclock, TSCs, PM timer, RTC   | ticks of a guest that keeps time by them              |
 * |----------|---------------------------------|-------------------------------------------------------|
 * | freeze   | go on from where they stood     | none is missing                                       |
 * | step     | go on by the gap                | the gap's are forgiven: the guest asks its clocks     |
 * | catch-up | go on by the gap                | the gap's are owed, as far as the policy pays (giveUpMs) |
 */

export type ClockMode = 'freeze' | 'step' | 'catch-up';

export const CLOCK_MODES: readonly ClockMode[] = ['freeze', 'step', 'catch-up'];

export interface ClockPlan {
  /** kvmclock goes on by what the host's calendar did. */
  readonly realtime: boolean;
  readonly ticks: 'owed' | 'forgiven';
}

export function clockPlan(mode: ClockMode): ClockPlan {
  return { realtime: mode !== 'freeze', ticks: mode === 'catch-up' ? 'owed' : 'forgiven' };
}

/** The gap that devices and ledger are told of: none where the clocks stood, but for the moment that restoring took. */
export function gapNs(plan: ClockPlan, passedNs: bigint): bigint {
  return plan.realtime ? passedNs : 0n;
}

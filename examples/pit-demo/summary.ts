/**
 * What the samples of a run say, as the figures of a table. Pure: no clock, no machine.
 */

import { greatestIn100Ms, workSpeed, type TickSample } from '../../bench/lib/tick-samples.js';

export interface Sample extends TickSample {
  /** How far the guest's clock is behind, what was forgiven included. */
  readonly lagMs: number;
}

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

export interface PolicyRun {
  readonly policy: string;
  readonly rateHz: number;
  readonly samples: readonly Sample[];
  readonly stop: Span;
  readonly overload: Span;
}

export interface Summary {
  readonly policy: string;
  readonly greatestLagMs: number;
  readonly endLagMs: number;
  /** From the end of the stop to the first sample within a tick; undefined when there is none before the overload. */
  readonly returnMs: number | undefined;
  readonly greatestIn100Ms: number;
  /** Speed of the guest's own work from the stop's end to the return, against its speed before the stop. */
  readonly workShare: number;
}

export interface RatePoint {
  readonly atMs: number;
  readonly rateHz: number;
}

/** What is owed swings by a period between ticks, so a guest that is owed nothing shows up to one tick, and the next. */
const TICKS_UNDER_WAY = 2;
/** Where a policy does not pay back, the guest's work is looked at for this long. */
const UNPAID_MS = 1000;

/** Interrupts a second between neighbouring samples, at the moment of the later. */
export function rates(samples: readonly Sample[]): RatePoint[] {
  return samples.slice(1).map((sample, index) => {
    const before = samples[index]!;
    return { atMs: sample.atMs, rateHz: ((sample.ticks - before.ticks) * 1000) / (sample.atMs - before.atMs) };
  });
}

/** The figures of one run. @throws RangeError when there are too few samples to say anything. */
export function summarise(run: PolicyRun): Summary {
  const { samples, stop, overload } = run;
  const last = samples.at(-1);
  if (last === undefined) throw new RangeError(`no samples of ${run.policy}`);
  const withinMs = (TICKS_UNDER_WAY * 1000) / run.rateHz;
  const back = samples.find((sample) => {
    return sample.atMs > stop.toMs && sample.atMs <= overload.fromMs && sample.lagMs <= withinMs;
  });
  const paying = { fromMs: stop.toMs, toMs: back?.atMs ?? stop.toMs + UNPAID_MS };
  return {
    policy: run.policy,
    greatestLagMs: Math.max(...samples.map(({ lagMs }) => lagMs)),
    endLagMs: last.lagMs,
    returnMs: back && back.atMs - stop.toMs,
    greatestIn100Ms: Math.round(greatestIn100Ms(samples)),
    workShare: workIn(samples, paying) / workIn(samples, { fromMs: 0, toMs: stop.fromMs }),
  };
}

/** Turns of work a millisecond of a span. Work stands still in a stop, so that the last sample in one is as good as its end. */
function workIn(samples: readonly Sample[], { fromMs, toMs }: Span): number {
  const from = samples.filter(({ atMs }) => atMs <= fromMs).at(-1) ?? samples[0]!;
  const to = samples.filter(({ atMs }) => atMs <= toMs).at(-1) ?? from;
  return workSpeed(from, to, fromMs);
}

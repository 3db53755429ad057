/** The nominal rate: what a guest has programmed, as it is to be fired when nothing is owed, under the time scale in force. */
import { timeScaleBounds } from './configuration.js';
import { countAtLeast, hostCount, isPeriodic, MAX_HOST_COUNT, tickUnitsOf, UNITS_PER_NS } from './counts.js';
import { REAL_TIME, type TimeScale } from './ledger.js';

export interface Nominal {
  /** False for one-shot modes and before the first load: there is no rate. */
  readonly periodic: boolean;
  /** The count to fire with: the guest's own in real time. */
  readonly count: number;
  /** The time of the host's that a tick is worth. */
  readonly periodNs: bigint;
  readonly hz: number;
  /** The guest programmed a shorter period than the kernel fires. */
  readonly isClamped: boolean;
  readonly minCount: number;
  readonly maxCount: number;
  /** The factor wished for, within what this count can be fired at. */
  readonly scale: TimeScale;
}

export function nominalOf(count: number, mode: number, wanted: TimeScale, minPeriodNs: bigint): Nominal {
  const minCount = countAtLeast(minPeriodNs);
  const periodic = isPeriodic(count, mode);
  const scale = periodic ? boundedScale(count, wanted, minPeriodNs) : wanted;
  const tickUnits = tickUnitsOf(Math.max(1, count), minPeriodNs);
  const isReal = scale.numerator === scale.denominator;
  const periodNs = (tickUnits * scale.denominator) / (UNITS_PER_NS * scale.numerator);
  const nominal = isReal ? count : scaledCount(Math.max(count, minCount), scale, minCount);
  return {
    periodic,
    count: nominal,
    periodNs,
    hz: 1e9 / Number(periodNs),
    isClamped: periodic && count < minCount,
    minCount,
    maxCount: Math.max(minCount, Math.min(MAX_HOST_COUNT, 2 * Math.max(nominal, minCount))),
    scale,
  };
}

function scaledCount(count: number, { numerator, denominator }: TimeScale, minCount: number): number {
  const scaled = Number((BigInt(count) * denominator * 2n + numerator) / (numerator * 2n));
  return Math.min(MAX_HOST_COUNT, Math.max(minCount, hostCount(scaled)));
}

/** A factor that was set for another rate is held within the bounds of this one. */
function boundedScale(count: number, wanted: TimeScale, minPeriodNs: bigint): TimeScale {
  const factor = Number(wanted.numerator) / Number(wanted.denominator);
  const { min, max } = timeScaleBounds(count, minPeriodNs);
  if (factor >= min && factor <= max) return wanted;
  const bounded = BigInt(factor < min ? Math.ceil(min * 1e6) : Math.floor(max * 1e6));
  return bounded === 1_000_000n ? REAL_TIME : { numerator: bounded, denominator: 1_000_000n };
}

/** Gathers what a policy is told from where it is kept. */
import type { PitBounds } from './configuration.js';
import { floorDiv, PIT_HZ, UNITS_PER_NS } from './counts.js';
import type { Episodes } from './episodes.js';
import type { GuestProgram } from './guest-program.js';
import type { Nominal } from './nominal.js';
import { MAX_EXPIRY_NS } from './pit-steering.js';
import type { PolicyInput } from './policy.js';
import type { TimeBooks } from './time-books.js';

export interface InputSources {
  readonly nowNs: bigint;
  readonly books: TimeBooks;
  readonly nominal: Nominal;
  readonly bounds: PitBounds;
  readonly program: GuestProgram;
  readonly episodes: Episodes;
  readonly minPeriodNs: bigint;
  readonly controlPeriodNs: bigint;
  readonly slowDown: boolean;
}

/** Silence of this many ticks, and of this many control periods, makes a source doubtful. */
const SILENT_TICKS = 3n;
const SILENT_PERIODS = 2n;

export function policyInput(sources: InputSources): PolicyInput {
  const { nowNs, books, nominal, program, minPeriodNs, controlPeriodNs } = sources;
  const { ledger, firing, recent, health, storm } = books;
  const { scale, count, periodNs, hz, minCount, maxCount } = nominal;
  const { expectedTicks, deliveredTicks, forgivenTicks, owedTicks, owedUnits } = ledger;
  const inTicksNs = SILENT_TICKS * firing.periodNs;
  const inPeriodsNs = SILENT_PERIODS * controlPeriodNs;
  const doubtfulNs = inTicksNs > inPeriodsNs ? inTicksNs : inPeriodsNs;
  return {
    nowNs,
    ledger: {
      expectedTicks,
      deliveredTicks,
      forgivenTicks,
      owedTicks,
      owedUnits,
      owedNs: floorDiv(owedUnits * scale.denominator, UNITS_PER_NS * scale.numerator),
    },
    nominal: {
      programmedCount: program.own.count,
      programmedHz: PIT_HZ / program.own.count,
      count,
      periodNs,
      hz,
    },
    firing: {
      count: firing.count,
      periodNs: firing.periodNs,
      sinceTickNs: firing.sinceTickNs,
      expiresInNs: program.expiry === undefined ? undefined : program.expiry.atNs - nowNs,
    },
    recent,
    silent: !books.isBegun || health.silentNs >= doubtfulNs,
    episode: sources.episodes.view,
    storm: { limitHz: storm.limitHz, active: storm.active },
    limits: {
      ...sources.bounds,
      minPeriodNs,
      minCount,
      maxCount,
      slowDown: sources.slowDown,
      controlPeriodNs,
      maxExpiryNs: MAX_EXPIRY_NS,
    },
  };
}

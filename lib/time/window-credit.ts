/**
 * What the ticks of one window between two looks are worth when the guest has reprogrammed the PIT within it. The moment
 * is unknown (KVM keeps no load time of channel 0), so the ticks are split as if none had been lost, and the doubt is bounded.
 *
 * The bound: with reinjection off a window of T can't have brought the guest more than T at the faster of the two speeds,
 * and the ticks at its edges (in service, pending, and the one under way when it began), each at most 65536 cycles. So
 * both the estimate and the truth lie between 0 and that, and the ledger adds their largest distance to its uncertainty.
 */
import { MAX_GUEST_COUNT, maxBigint, minBigint, UNITS_PER_CYCLE } from './counts.js';

/** How the PIT fired, and what a tick of it was worth to the guest. */
export interface FiringRate {
  readonly periodNs: bigint;
  readonly tickUnits: bigint;
}

export interface CreditWindow {
  /** Acknowledged in the window. */
  readonly ticks: bigint;
  readonly elapsedNs: bigint;
  readonly before: FiringRate;
  readonly after: FiringRate;
  /** Reinjection is on: the kernel may have replayed a backlog, so time bounds nothing. */
  readonly replayed: boolean;
}

export interface WindowCredit {
  /** What the guest's clock gained, as an estimate. */
  readonly units: bigint;
  /** No further from the truth than this. */
  readonly uncertainUnits: bigint;
}

const EDGE_TICKS = 3n;
const LONGEST_TICK_UNITS = BigInt(MAX_GUEST_COUNT) * UNITS_PER_CYCLE;

export function creditWindow(window: CreditWindow): WindowCredit {
  const { ticks, elapsedNs, before, after, replayed } = window;
  const oldTicks = splitTicks(window);
  const split = oldTicks * before.tickUnits + (ticks - oldTicks) * after.tickUnits;
  const longest = maxBigint(maxBigint(before.tickUnits, after.tickUnits), LONGEST_TICK_UNITS);
  if (replayed) return { units: split, uncertainUnits: ticks * longest };
  const most = mostUnits(elapsedNs, before, after) + EDGE_TICKS * longest;
  const likely = mostUnits(elapsedNs, before, after) + maxBigint(before.tickUnits, after.tickUnits);
  const units = minBigint(split, likely);
  return { units, uncertainUnits: ticks === 0n ? 0n : maxBigint(units, most - units) };
}

/**
 * The credit of a window in which no reprogramming was seen but more ticks were acknowledged than can have been fired: the
 * guest went to a faster rate and back between two looks.
 */
export function creditUnseen(ticks: bigint, elapsedNs: bigint, rate: FiringRate): WindowCredit {
  return creditWindow({ ticks, elapsedNs, before: rate, after: rate, replayed: false });
}

/**
 * The ticks that came before the change, so that the firing times of all add up to the window. Where the two periods are too
 * near to tell, the middle is taken: half the doubt.
 */
function splitTicks({ ticks, elapsedNs, before, after }: CreditWindow): bigint {
  const difference = after.periodNs - before.periodNs;
  // One tick more or less moves the split by after.periodNs / difference ticks.
  if ((difference < 0n ? -difference : difference) * ticks < 2n * after.periodNs) return ticks / 2n;
  const old = (ticks * after.periodNs - elapsedNs) / difference;
  return maxBigint(0n, minBigint(ticks, minBigint(old, elapsedNs / before.periodNs + 1n)));
}

function mostUnits(elapsedNs: bigint, before: FiringRate, after: FiringRate): bigint {
  return maxBigint((elapsedNs * before.tickUnits) / before.periodNs, (elapsedNs * after.tickUnits) / after.periodNs);
}

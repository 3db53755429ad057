/**
 * What a guest's PIT shows while there is nothing to decide about its time, for native code to look for in JavaScript's place. The
 * bounds are those at which the policy would leave the nominal phase, so nothing is seen later than by looks of JavaScript's.
 */
import { maxBigint } from './counts.js';
import type { PitCalm } from './pit-port.js';
import type { PolicyInput } from './policy.js';
import type { TimeBooks } from './time-books.js';

type Found = Pick<PitCalm, 'expected' | 'intervalNs'>;

/** Of a guest that keeps time otherwise: no tick comes. */
export function calmOfNoTicks({ closedAt }: TimeBooks, found: Found): PitCalm {
  return { ...found, periodNs: 0n, sinceNs: closedAt.ns, delivered: closedAt.delivered, behindNs: 0n, aheadNs: 0n };
}

/** Of a guest in the nominal phase; undefined when it is about to leave it. `input`: as of the last closed window. */
export function calmOfTicks({ closedAt, firing }: TimeBooks, input: PolicyInput, found: Found): PitCalm | undefined {
  const { ledger, limits, nominal } = input;
  const behindNs = limits.enterNs - ledger.owedNs;
  if (behindNs <= 0n) return undefined;
  // Where leads are paid, from this one on (catch-up-policy.ts).
  const leadNs = limits.toleranceNs + nominal.periodNs / 2n;
  return {
    ...found,
    periodNs: firing.periodNs,
    sinceNs: closedAt.ns,
    delivered: closedAt.delivered,
    behindNs,
    // A lead that is left alone may well be greater.
    aheadNs: maxBigint(leadNs + ledger.owedNs, 2n * firing.periodNs),
  };
}

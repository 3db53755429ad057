/**
 * The two policies that leave the PIT's rate alone. `reinject`: the kernel replays what it could not deliver, as fast as the
 * guest acknowledges; here the ledger only watches. `discard`: what is lost is lost, and the ledger forgives it at once.
 */
import { nominalDecision, type PitPolicy } from './policy.js';

/** A tick may have been fired and not acknowledged yet, and one more is owed just before the next is fired. */
const TICKS_UNDER_WAY = 1n;

export const reinjectPolicy: PitPolicy = (input) => nominalDecision(input, true);

export const discardPolicy: PitPolicy = (input) => {
  const lost = input.ledger.owedTicks - TICKS_UNDER_WAY;
  const decision = nominalDecision(input, false);
  return lost > 0n ? { ...decision, forgiveTicks: lost, forgiveReason: 'discarded' } : decision;
};

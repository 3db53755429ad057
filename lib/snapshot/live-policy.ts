/**
 * When a live snapshot stops copying in rounds: when a stop would be short, or fits into the one that was promised and further rounds
 * gain nothing, or never. Pure: it takes what the rounds measured and returns a decision. A guest that dirties memory faster than it can be written is
 * not waited for until the disk is full; it is told apart by rounds that leave no less than the one before.
 *
 *   all groups -> round: what was dirtied meanwhile -> round ... -> stop: the last ones are copied -> the guest runs, they are written
 */

/** What is known after a round. */
export interface LiveRound {
  /** Counts from 1, the one that copies everything. */
  readonly round: number;
  /** Groups that were dirtied since they were copied. */
  readonly dirtyGroups: number;
  /** The same after each round before, oldest first. */
  readonly history: readonly number[];
  /** What a stop takes besides copying: quiescing, state, letting go again; as measured, in ms. */
  readonly fixedStopMs: number;
  /** Groups that can be copied within a stop in a ms. */
  readonly copiedGroupsPerMs: number;
  /** Groups for which there is memory to copy them into. */
  readonly bufferGroups: number;
  readonly maxPauseMs: number;
  /** The guest can still be slowed down, so that fewer rounds are tried before that. */
  readonly canThrottle?: boolean;
}

export type LiveDecision =
  | { readonly action: 'round' }
  | { readonly action: 'stop'; readonly expectedMs: number }
  /** It does not converge; `neededMs` of stop would do. */
  | { readonly action: 'refuse'; readonly neededMs: number; readonly why: string };

/** Rounds after which what is left has to fit, whatever the trend says. */
const MAX_ROUNDS = 30;
/** Rounds in a row that may leave more than nine tenths of what the best one before left. */
const MAX_VAIN_ROUNDS = 4;
const MAX_VAIN_ROUNDS_TO_THROTTLE = 2;
const PROGRESS = 0.9;
/** A promise is kept with something in hand: the stop's own measurement is a guess about the next one. */
const MARGIN = 0.7;
/** A stop longer than this is made shorter by further rounds as long as each gains, however long a stop was allowed. */
const AIM_MS = 10;

export function decideLiveRound(input: LiveRound): LiveDecision {
  const { dirtyGroups, fixedStopMs, copiedGroupsPerMs, bufferGroups, maxPauseMs } = input;
  const expectedMs = fixedStopMs + dirtyGroups / copiedGroupsPerMs;
  const fitsBuffer = dirtyGroups <= bufferGroups;
  const vain = vainRounds([...input.history, dirtyGroups]);
  const isShort = expectedMs <= AIM_MS || vain > 0;
  if (fitsBuffer && expectedMs <= MARGIN * maxPauseMs && isShort) return { action: 'stop', expectedMs };
  const isVain = vain >= (input.canThrottle === true ? MAX_VAIN_ROUNDS_TO_THROTTLE : MAX_VAIN_ROUNDS);
  if (!isVain && input.round < MAX_ROUNDS) return { action: 'round' };
  // With nothing more to gain the margin is given up, but not the promise.
  if (fitsBuffer && expectedMs <= maxPauseMs) return { action: 'stop', expectedMs };
  const neededMs = Math.ceil(expectedMs / MARGIN);
  const why = fitsBuffer
    ? `the guest dirties ${dirtyGroups} groups of 64 KiB in every round`
    : `the guest dirties ${dirtyGroups} groups of 64 KiB in every round; ${bufferGroups} fit into the copy buffer`;
  return { action: 'refuse', neededMs, why };
}

/** Rounds since the last one that left clearly less than every one before. */
function vainRounds(left: readonly number[]): number {
  let best = Infinity;
  let vain = 0;
  for (const groups of left) {
    if (groups < PROGRESS * best) vain = 0;
    else vain++;
    best = Math.min(best, groups);
  }
  return vain;
}

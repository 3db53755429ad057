/**
 * Gives a guest the host's time of day, however long a frame is on its way: asks what the guest's monotonic clock says and has the
 * wall clock set by that. As in NTP, the answer is taken to be from the middle of the question's round trip, so that the error is at
 * most half of the shortest that was seen.
 */

/** Of the agent. */
export interface ClockEnd {
  /** What the guest's monotonic clock says, in nanoseconds; undefined when the agent does not know the question. */
  ask(): Promise<bigint | undefined>;
  /** That it was `wallMs` (milliseconds since 1970) when that clock said `monotonicNs`; without it, that it is so when this is read. */
  set(wallMs: number, monotonicNs?: bigint): void;
}

const QUESTIONS = 4;
/** A round trip that is no reason to ask again. */
const SHORT_MS = 20;

/** @throws what `ask` does */
export async function setGuestClock(end: ClockEnd, wallMs: () => number): Promise<void> {
  // At once, since what runs in the guest runs meanwhile; and for agents that don't know the question.
  end.set(wallMs());
  let best: { readonly tookMs: number; readonly atMs: number; readonly monotonicNs: bigint } | undefined;
  for (let asked = 0; asked < QUESTIONS && !(best !== undefined && best.tookMs <= SHORT_MS); asked++) {
    const askedMs = wallMs();
    const monotonicNs = await end.ask();
    if (monotonicNs === undefined) return;
    const tookMs = wallMs() - askedMs;
    if (best === undefined || tookMs < best.tookMs) best = { tookMs, atMs: askedMs + tookMs / 2, monotonicNs };
  }
  if (best !== undefined) end.set(best.atMs, best.monotonicNs);
}

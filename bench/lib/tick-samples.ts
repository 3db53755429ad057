/** What looks at a ticking guest say: the greatest rate of its interrupts, the speed of its own work. Pure. */

/** One look at a guest from outside. */
export interface TickSample {
  readonly atMs: number;
  /** Ticks that it has taken. */
  readonly ticks: number;
  /** Turns of its own work, modulo 2^32. */
  readonly work: number;
}

const WINDOW_MS = 100;

/** The most interrupts in any 100 ms; windows between samples are longer, so their mean is taken for it. */
export function greatestIn100Ms(samples: readonly TickSample[]): number {
  let greatest = 0;
  let first = 0;
  for (const last of samples) {
    while (first + 1 < samples.length && last.atMs - samples[first + 1]!.atMs >= WINDOW_MS) first++;
    const elapsedMs = last.atMs - samples[first]!.atMs;
    if (elapsedMs < WINDOW_MS) continue;
    greatest = Math.max(greatest, ((last.ticks - samples[first]!.ticks) * WINDOW_MS) / elapsedMs);
  }
  return greatest;
}

/** Turns of work a millisecond from one look to another. `sinceMs`: it stood still until then. */
export function workSpeed(from: TickSample, to: TickSample, sinceMs = from.atMs): number {
  return ((to.work - from.work) >>> 0) / (to.atMs - Math.max(from.atMs, sinceMs));
}

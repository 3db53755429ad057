/** The last minute of a machine's rates, for the charts; and when its PIT was not in its usual phase. */
import { ratesOf, type Rates } from './rates.js';
import type { WatchedStats } from './protocol.js';

/** What the charts show. */
export const WINDOW_MS = 60_000;
/** Two looks that are further apart than this have a gap between them: nobody looked. */
const GAP_MS = 2_500;

/** A time during which the guest's time was caught up (or slowed down, or nobody steered it). */
export interface PhaseSpan {
  readonly phase: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export class History {
  #last: WatchedStats | undefined;
  #rates: Rates[] = [];

  /** The newest are last. */
  get rates(): readonly Rates[] {
    return this.#rates;
  }

  get latest(): Rates | undefined {
    return this.#rates.at(-1);
  }

  /** The newest look itself. */
  get stats(): WatchedStats | undefined {
    return this.#last;
  }

  /** False when nothing is new. */
  take(stats: WatchedStats): boolean {
    const before = this.#last;
    this.#last = stats;
    if (before === undefined) return false;
    // The machine's clock has gone back: it is another process under the same name.
    if (stats.atMs < before.atMs) this.#rates = [];
    if (stats.atMs - before.atMs > GAP_MS) return false;
    const rates = ratesOf(before, stats);
    if (rates === undefined) return false;
    this.#rates.push(rates);
    const oldest = this.#rates.findIndex(({ atMs }) => atMs >= rates.atMs - WINDOW_MS);
    if (oldest > 0) this.#rates.splice(0, oldest);
    return true;
  }

  /** All the reasons of exits that were seen, by name. */
  reasons(): string[] {
    return [...new Set(this.#rates.flatMap(({ exitsByReason }) => Object.keys(exitsByReason)))].sort();
  }

  /** Spans that are not nominal, in order. */
  phases(): PhaseSpan[] {
    const spans: { phase: string; fromMs: number; toMs: number }[] = [];
    let before: Rates | undefined;
    for (const rates of this.#rates) {
      const { phase, atMs } = rates;
      if (phase !== 'nominal') {
        const last = spans.at(-1);
        if (last !== undefined && last.phase === phase && last.toMs === before?.atMs) last.toMs = atMs;
        else spans.push({ phase, fromMs: before?.atMs ?? atMs, toMs: atMs });
      }
      before = rates;
    }
    return spans;
  }
}

/**
 * Something that is asked for again and again while anybody listens, and told to listeners when it has changed: the list of machines, the
 * folder of snapshots. Two asks never overlap.
 */
import type { Clock, Timer } from '../base/clock.js';

export interface PolledOptions<T> {
  readonly clock: Clock;
  readonly everyMs: number;
  /** Undefined: it can't be told now. Must not reject. */
  readonly ask: () => Promise<T | undefined>;
}

export class Polled<T> {
  readonly #options: PolledOptions<T>;
  readonly #listeners = new Set<(value: T) => void>();
  #last: { readonly value: T; readonly text: string } | undefined;
  #timer: Timer | undefined;
  #asking = false;
  #askAgain = false;

  constructor(options: PolledOptions<T>) {
    this.#options = options;
  }

  /** Tells what is known at once, and what is new from then on, until the returned function is called. */
  listen(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    if (this.#last !== undefined) listener(this.#last.value);
    this.refresh();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#timer?.cancel();
      // What nobody has looked at since may be old.
      this.#last = undefined;
    };
  }

  /** Asks now: something was done that changes it. */
  refresh(): void {
    if (this.#listeners.size === 0) return;
    this.#timer?.cancel();
    if (this.#asking) this.#askAgain = true;
    else void this.#look();
  }

  async #look(): Promise<void> {
    this.#asking = true;
    const value = await this.#options.ask();
    this.#asking = false;
    if (this.#listeners.size === 0) return;
    const text = value === undefined ? undefined : JSON.stringify(value);
    if (value !== undefined && text !== undefined && text !== this.#last?.text) {
      this.#last = { value, text };
      for (const listener of [...this.#listeners]) listener(value);
    }
    const again = this.#askAgain;
    this.#askAgain = false;
    if (again) return void this.#look();
    this.#timer = this.#options.clock.setTimer(BigInt(this.#options.everyMs) * 1_000_000n, () => void this.#look());
  }
}

/**
 * Flush where the backend has none: its data is as durable as it will ever be once a request is done, so what is left
 * of a flush is its order. It ends after every change that was in flight when it came, and waits for none that came
 * later, so a steady load can't hold it up.
 */
interface Waiting {
  /** Changes that have an order number below this one are waited for. */
  readonly before: number;
  left: number;
  readonly passed: () => void;
}

export class FlushBarrier {
  #nextOrder = 0;
  #inFlight = 0;
  #waiting: Waiting[] = [];

  /** A change starts; the number goes with it to `ended`. */
  started(): number {
    this.#inFlight++;
    return this.#nextOrder++;
  }

  ended(order: number): void {
    this.#inFlight--;
    if (this.#waiting.length === 0) return;
    for (const flush of this.#waiting) if (order < flush.before) flush.left--;
    // Those that came first have the fewest to wait for.
    while (this.#waiting[0]?.left === 0) this.#waiting.shift()!.passed();
  }

  /** Calls `passed` when the changes in flight have ended: at once when there are none. */
  wait(passed: () => void): void {
    if (this.#inFlight === 0 && this.#waiting.length === 0) passed();
    else this.#waiting.push({ before: this.#nextOrder, left: this.#inFlight, passed });
  }
}

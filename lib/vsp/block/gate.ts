/**
 * Where requests wait while a backend is changed or a snapshot is prepared: what comes is held, in order, and what is
 * in flight drains. Several may hold at once; requests go on when the last one lets go.
 *
 *   open --hold()--> holding (drained() resolves at nothing in flight) --release() of the last--> replaying --> open
 */
export class RequestGate<Call> {
  readonly #start: (call: Call) => void;
  #held: Call[] = [];
  #holds = 0;
  #inFlight = 0;
  #replaying = false;
  #waiters: (() => void)[] = [];

  /** `start` gets each held call when it goes on. */
  constructor(start: (call: Call) => void) {
    this.#start = start;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Calls that wait. */
  get held(): number {
    return this.#held.length;
  }

  /** True: go on now. False: it is held. Each call that goes on ends with `leave`. */
  enter(call: Call): boolean {
    if (this.#holds > 0 || this.#replaying) {
      this.#held.push(call);
      return false;
    }
    this.#inFlight++;
    return true;
  }

  leave(): void {
    this.#inFlight--;
    if (this.#inFlight > 0 || this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const resolve of waiters) resolve();
  }

  hold(): void {
    this.#holds++;
  }

  release(): void {
    this.#holds--;
    if (this.#replaying) return;
    this.#replaying = true;
    // What a completed call brings in meanwhile goes to the end of the same list, and so stays in order.
    let next = 0;
    for (; this.#holds === 0 && next < this.#held.length; next++) {
      this.#inFlight++;
      this.#start(this.#held[next]!);
    }
    this.#held = this.#held.slice(next);
    this.#replaying = false;
  }

  /** Resolves at a moment with nothing in flight; only a hold keeps it so. */
  drained(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}

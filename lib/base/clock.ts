/**
 * Time as a parameter: devices and policies take a Clock, so that tests drive them by hand.
 * Monotonic time never steps; wall time is the host's calendar.
 */
// By name: the global `process` is a getter, which costs as much as the look at the clock.
import { hrtime } from 'node:process';

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Monotonic nanoseconds; only differences mean something. */
  nowNs(): bigint;
  /** The host's calendar time in milliseconds since 1970, UTC. */
  wallMs(): number;
  /** Calls back once, not earlier than after `delayNs`. */
  setTimer(delayNs: bigint, callback: () => void): Timer;
}

/** What setTimeout can wait for: a longer time would fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** The host's own clock. Its timers do not keep the process alive. */
export const hostClock: Clock = {
  nowNs: () => hrtime.bigint(),
  wallMs: () => Date.now(),
  setTimer(delayNs, callback) {
    const dueNs = hrtime.bigint() + delayNs;
    let handle: NodeJS.Timeout;
    const arm = (waitNs: bigint) => {
      handle = setTimeout(fire, Math.min(Math.ceil(Number(waitNs) / 1e6), MAX_TIMEOUT_MS));
      handle.unref();
    };
    // setTimeout counts from a time in whole milliseconds, so one in a hundred fires up to 1 ms early.
    const fire = () => {
      const leftNs = dueNs - hrtime.bigint();
      if (leftNs > 0n) arm(leftNs);
      else callback();
    };
    arm(delayNs);
    return { cancel: () => clearTimeout(handle) };
  },
};

/** A clock that stands still until it is told to advance; timers fire in order, in the middle of the advance. */
export class ManualClock implements Clock {
  #nowNs: bigint;
  readonly #wallStartMs: number;
  #timers: { atNs: bigint; callback: () => void }[] = [];

  constructor(options: { startNs?: bigint; wallMs?: number } = {}) {
    this.#nowNs = options.startNs ?? 0n;
    this.#wallStartMs = (options.wallMs ?? 0) - Number(this.#nowNs / 1_000_000n);
  }

  nowNs(): bigint {
    return this.#nowNs;
  }

  wallMs(): number {
    return this.#wallStartMs + Number(this.#nowNs / 1_000_000n);
  }

  setTimer(delayNs: bigint, callback: () => void): Timer {
    const timer = { atNs: this.#nowNs + (delayNs > 0n ? delayNs : 0n), callback };
    this.#timers.push(timer);
    return { cancel: () => (this.#timers = this.#timers.filter((other) => other !== timer)) };
  }

  /** Moves time on by `deltaNs`, running every timer that falls due on the way. */
  advance(deltaNs: bigint): void {
    const endNs = this.#nowNs + deltaNs;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.atNs <= endNs).sort((a, b) => (a.atNs < b.atNs ? -1 : 1))[0];
      if (!due) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowNs = due.atNs;
      due.callback();
    }
    this.#nowNs = endNs;
  }
}

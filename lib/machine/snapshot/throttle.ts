/**
 * Slows a guest down for a live snapshot: its vCPUs are taken out of the guest for a part of every tenth of a second, each time in a turn
 * of the machine's life of its own. So a pause, a stop for the snapshot or an end comes between two of them, and finds the guest
 * as it is without them.
 */
import type { Clock } from '../../base/clock.js';
import type { TurnQueue } from '../../base/turn-queue.js';
import type { GuestThrottle } from '../../snapshot/save.js';

/** The machine, as far as it is slowed down. */
export interface ThrottledMachine {
  readonly turns: TurnQueue;
  /**
   * Takes the vCPUs out of the guest; false when they do not run anyway. @throws VmmError ERR_STATE when there is no guest any more;
   * AbortError
   */
  hold(signal: AbortSignal | undefined): Promise<boolean>;
  letGo(): Promise<void>;
}

/** One hold and one run. */
const PERIOD_NS = 100_000_000;
/** What timers can do. */
const LEAST_RUN_NS = 1_000_000;

export class MachineThrottle implements GuestThrottle {
  readonly #machine: ThrottledMachine;
  readonly #clock: Clock;
  /** How long the guest may stand at once, in ns. */
  readonly #longestNs: number;
  readonly #end = new AbortController();
  #share = 0;
  #loop: Promise<void> | undefined;

  /** @param maxPauseMs no single hold is longer */
  constructor(machine: ThrottledMachine, clock: Clock, maxPauseMs: number | undefined) {
    this.#machine = machine;
    this.#clock = clock;
    this.#longestNs = Math.min(PERIOD_NS, (maxPauseMs ?? Infinity) * 1e6);
  }

  set(share: number): void {
    this.#share = share;
    // Without a guest there is nothing to slow down; the snapshot finds that out by itself.
    this.#loop ??= this.#run().catch(() => undefined);
  }

  async end(): Promise<void> {
    this.#end.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      const heldNs = Math.min(this.#share * PERIOD_NS, this.#longestNs);
      const runsNs = Math.max(LEAST_RUN_NS, (heldNs * (1 - this.#share)) / this.#share);
      await this.#machine.turns.run(async () => {
        if (signal.aborted) return;
        const ran = await this.#machine.hold(signal);
        try {
          // Nobody waits for one that is paused: the next turn may be the stop.
          if (ran) await this.#wait(heldNs);
        } finally {
          await this.#machine.letGo();
        }
      });
      await this.#wait(runsNs);
    }
  }

  /** Or until the end. */
  #wait(ns: number): Promise<void> {
    const { signal } = this.#end;
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#clock.setTimer(BigInt(Math.ceil(ns)), done);
      signal.addEventListener('abort', done);
      if (signal.aborted) done();
    });
  }
}

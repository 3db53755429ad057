/**
 * The rate limit of one guest at one device, in front of its requests: who may not pass yet waits, in order, until the budget
 * (budget.ts) lets it. Time by an injected clock; nothing runs while nobody waits.
 */
import type { Clock, Timer } from '../../base/clock.js';
import { Budget, type TrafficLimits } from './budget.js';

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
}

export class Pacer {
  readonly #clock: Clock;
  readonly #budget: Budget;
  #line: Waiting[] = [];
  #timer: Timer | undefined;
  #isStarting = false;

  /** `limits` have been checked. */
  constructor(clock: Clock, limits: TrafficLimits) {
    this.#clock = clock;
    this.#budget = new Budget(limits, clock.nowNs());
  }

  get waiting(): number {
    return this.#line.length;
  }

  /** Lets through at once whoever waits, who is owed for as any other: those that come later wait the longer. */
  hurry(): void {
    this.#budget.untilFreeNs(this.#clock.nowNs());
    for (const waiting of this.#line.splice(0)) this.#start(waiting);
  }

  /** Whoever waits is not wanted any more: their starts, which are not called and cost nothing. */
  clear(): (() => void)[] {
    this.#timer?.cancel();
    this.#timer = undefined;
    return this.#line.splice(0).map(({ start }) => start);
  }

  /** Calls `start` when the limits allow it, possibly now. */
  submit(bytes: number, start: () => void): void {
    if (this.#budget.isUnlimited) {
      start();
      return;
    }
    this.#line.push({ bytes, start });
    if (this.#timer === undefined && !this.#isStarting) this.#serve();
  }

  #serve(): void {
    this.#timer = undefined;
    this.#isStarting = true;
    let waitNs = 0;
    while (this.#line.length > 0) {
      waitNs = this.#budget.untilFreeNs(this.#clock.nowNs());
      if (waitNs > 0) break;
      this.#start(this.#line.shift()!);
    }
    this.#isStarting = false;
    if (this.#line.length > 0) this.#timer = this.#clock.setTimer(BigInt(Math.ceil(waitNs)), () => this.#serve());
  }

  #start({ bytes, start }: Waiting): void {
    this.#budget.take(bytes);
    start();
  }
}

/**
 * The log that every room writes to: one record at a time to a sink that the front end chooses.
 * What a guest can trigger goes through `RateLimit`, so that a guest cannot fill a disk.
 */
import type { Clock } from './clock.js';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface Logger {
  log(level: LogLevel, message: string, fields?: Record<string, unknown>): void;
}

/** A logger that drops everything. */
export const silentLogger: Logger = { log: () => undefined };

/**
 * At most `burst` records, refilled at one every `refillNs`; says how many were dropped when it lets one through again.
 */
export class RateLimit {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #refillNs: bigint;
  #tokens: number;
  #refilledNs: bigint;
  #dropped = 0;

  constructor(clock: Clock, options: { burst: number; refillNs: bigint }) {
    this.#clock = clock;
    this.#burst = options.burst;
    this.#refillNs = options.refillNs;
    this.#tokens = options.burst;
    this.#refilledNs = clock.nowNs();
  }

  /** Calls `emit(dropped)` if a token is left; otherwise only counts. */
  run(emit: (droppedBefore: number) => void): void {
    const elapsed = this.#clock.nowNs() - this.#refilledNs;
    const refill = elapsed / this.#refillNs;
    if (refill > 0n) {
      this.#tokens = Math.min(this.#burst, this.#tokens + Number(refill));
      this.#refilledNs += refill * this.#refillNs;
    }
    if (this.#tokens === 0) {
      this.#dropped++;
      return;
    }
    this.#tokens--;
    const dropped = this.#dropped;
    this.#dropped = 0;
    emit(dropped);
  }
}

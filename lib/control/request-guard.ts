/**
 * Cuts connections whose client hangs in the middle of a request, or has one open for nothing: each request has a time to be
 * there in whole, which starts again when its answer has gone. What a request then takes is not bounded here.
 */
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../base/clock.js';

export class RequestGuard {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #timers = new Map<Duplex, Timer>();

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  /** A request is waited for. */
  expect(stream: Duplex): void {
    this.arrived(stream);
    if (stream.destroyed) return;
    const timer = this.#clock.setTimer(BigInt(this.#limitMs) * 1_000_000n, () => {
      this.#timers.delete(stream);
      stream.destroy();
    });
    this.#timers.set(stream, timer);
  }

  /** It is there, or the connection has gone. */
  arrived(stream: Duplex): void {
    this.#timers.get(stream)?.cancel();
    this.#timers.delete(stream);
  }
}

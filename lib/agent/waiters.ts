/** Calls that wait for something that the guest says: they end by that, by their time, by their signal, or with the connection. */
import type { Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';

export interface WaitOptions {
  /** Milliseconds. Default: without end. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export class Waiters<T> {
  readonly #clock: Clock;
  readonly #waiting = new Set<{ resolve: (value: T) => void; reject: (error: Error) => void }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `awaited`: what there was none of, for the error. @throws VmmError ERR_TIMEOUT; ERR_ABORTED; what `reject` is given */
  wait({ timeoutMs, signal }: WaitOptions, awaited: string): Promise<T> {
    if (signal?.aborted) return Promise.reject(new AbortError(signal));
    return new Promise((resolve, reject) => {
      const done = (): void => {
        this.#waiting.delete(waiter);
        timer?.cancel();
        signal?.removeEventListener('abort', onAbort);
      };
      const waiter = {
        resolve: (value: T) => (done(), resolve(value)),
        reject: (error: Error) => (done(), reject(error)),
      };
      const onAbort = (): void => waiter.reject(new AbortError(signal));
      const timer =
        timeoutMs === undefined
          ? undefined
          : this.#clock.setTimer(BigInt(Math.ceil(timeoutMs)) * 1_000_000n, () =>
              waiter.reject(new VmmError('ERR_TIMEOUT', `${awaited} after ${timeoutMs} ms`)),
            );
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(waiter);
    });
  }

  resolve(value: T): void {
    for (const waiter of [...this.#waiting]) waiter.resolve(value);
  }

  reject(reason: Error): void {
    for (const waiter of [...this.#waiting]) waiter.reject(reason);
  }
}

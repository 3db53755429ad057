/** A wait that can be given up. */
import type { Clock } from './clock.js';
import { AbortError } from './errors.js';

/** Not shorter than that. @throws AbortError */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(new AbortError(signal));
    const done = (): void => {
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
    };
    const onAbort = (): void => (done(), reject(new AbortError(signal)));
    const timer = clock.setTimer(BigInt(Math.ceil(ms)) * 1_000_000n, () => (done(), resolve()));
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

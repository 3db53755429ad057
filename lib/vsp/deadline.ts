/**
 * Waiting with an end: for a promise, but no longer than a time by the given clock, and not after an abort. What was
 * waited for goes on by itself; whoever gives up undoes what it began.
 */
import type { Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';

export interface WaitLimits {
  readonly clock: Clock;
  /** Undefined: any time. */
  readonly maxNs?: bigint | undefined;
  readonly signal?: AbortSignal | undefined;
  /** For the message: 'the requests in flight of disk root'. */
  readonly what: string;
}

/** @throws VmmError ERR_TIMEOUT; AbortError; what `promise` rejects with. */
export function waitFor<T>(promise: Promise<T>, limits: WaitLimits): Promise<T> {
  const { clock, maxNs, signal, what } = limits;
  return new Promise<T>((resolve, reject) => {
    const settle = (end: () => void): void => {
      timer?.cancel();
      signal?.removeEventListener('abort', onAbort);
      end();
    };
    const onAbort = (): void => settle(() => reject(new AbortError(signal)));
    const timer =
      maxNs === undefined
        ? undefined
        : clock.setTimer(maxNs, () =>
            settle(() => reject(new VmmError('ERR_TIMEOUT', `${what}: not done in ${maxNs / 1_000_000n} ms`))),
          );
    promise.then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(asError(error))),
    );
    if (signal?.aborted) onAbort();
    else signal?.addEventListener('abort', onAbort, { once: true });
  });
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new VmmError('ERR_SYSTEM', String(reason), { cause: reason });
}

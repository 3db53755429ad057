/**
 * One thing after another: the changes of a life (a machine's start, pause, restart and close, a disk's) never overlap. A call that
 * waits for its turn can be aborted; one that has its turn ends by itself.
 */
import { AbortError } from './errors.js';

export class TurnQueue {
  #last: Promise<unknown> = Promise.resolve();

  /**
   * Runs `action` when all that was queued before has ended, well or not.
   *
   * @throws AbortError when `signal` fires before the action's turn; the action is then never run. What `action` throws.
   */
  run<T>(action: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted) return Promise.reject(new AbortError(signal));
    let started = false;
    const result = this.#last.then(() => {
      if (signal?.aborted) throw new AbortError(signal);
      started = true;
      return action();
    });
    this.#last = result.catch(() => undefined);
    return signal ? untilAborted(result, signal, () => !started) : result;
  }
}

/**
 * What `promise` comes to, or an AbortError as soon as `signal` fires; `promise` itself goes on.
 *
 * @param applies asked when the signal fires: false lets the promise be waited for after all.
 */
export function untilAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  applies: () => boolean = () => true,
): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => {
      if (applies()) reject(new AbortError(signal));
    };
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/**
 * How a machine ended, once its holder knows. Who waits for it can leave again and leaves nothing behind, which a promise does not let:
 * a machine that runs for months is asked by many.
 */
import { AbortError } from '../base/errors.js';
import type { FinalStatus } from './target.js';

export class Ending {
  readonly #listeners = new Set<(status: FinalStatus) => void>();
  #status: FinalStatus | undefined;

  get status(): FinalStatus | undefined {
    return this.#status;
  }

  /** How many wait. */
  get size(): number {
    return this.#listeners.size;
  }

  /** Once: what comes later says nothing new. */
  settle(status: FinalStatus): void {
    if (this.#status !== undefined) return;
    this.#status = status;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener(status);
  }

  /** Calls `listener`, which must not throw, once; at once where it is known. The result leaves. */
  on(listener: (status: FinalStatus) => void): () => void {
    if (this.#status === undefined) this.#listeners.add(listener);
    else listener(this.#status);
    return () => void this.#listeners.delete(listener);
  }

  /** @throws AbortError */
  until(signal: AbortSignal): Promise<FinalStatus> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new AbortError(signal));
      const abort = (): void => {
        leave();
        reject(new AbortError(signal));
      };
      signal.addEventListener('abort', abort, { once: true });
      const leave = this.on((status) => {
        signal.removeEventListener('abort', abort);
        resolve(status);
      });
    });
  }
}

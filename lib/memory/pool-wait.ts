/**
 * Waiting for the addon's pools of snapshot threads: wakes come through the dispatcher, and each is a look at the pool's
 * progress. While somebody waits, it is held, and the event loop with it.
 */
import { VmmError } from '../base/errors.js';
import { loadBinding } from '../kvm/binding.js';

export interface PoolProgress {
  readonly idle: boolean;
}

export class PoolWait<P extends PoolProgress> {
  readonly #sourceId: number;
  readonly #look: () => P;
  readonly #waiters = new Set<Waiter<P>>();

  /** `look` is called for each wake while somebody waits. It must hold the pool, and not what holds this. */
  constructor(sourceId: number, look: () => P) {
    this.#sourceId = sourceId;
    this.#look = look;
    loadBinding().dispatcher.register(sourceId, this, (wait) => wait.#woken());
  }

  /** Resolves with the progress of a pool that has nothing under way, at once where that is so already. */
  idle(onProgress?: (progress: P) => void): Promise<P> {
    const { dispatcher } = loadBinding();
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#waiters.delete(waiter);
        dispatcher.letGo(this);
        settle();
      };
      const waiter: Waiter<P> = {
        hear: (progress) => {
          try {
            onProgress?.(progress);
            if (progress.idle) end(() => resolve(progress));
          } catch (error) {
            end(() => reject(error instanceof Error ? error : new Error(String(error))));
          }
        },
        fail: (error) => end(() => reject(error)),
      };
      dispatcher.hold(this);
      this.#waiters.add(waiter);
      // Everybody's: a look takes the wake that others may wait for.
      this.#woken();
    });
  }

  /** Who waits still gets ERR_CLOSED. */
  close(): void {
    const closed = new VmmError('ERR_CLOSED', 'it was closed');
    for (const waiter of [...this.#waiters]) waiter.fail(closed);
    loadBinding().dispatcher.unregister(this.#sourceId);
  }

  #woken(): void {
    if (this.#waiters.size === 0) return;
    const progress = this.#look();
    for (const waiter of [...this.#waiters]) waiter.hear(progress);
  }
}

interface Waiter<P> {
  hear(progress: P): void;
  fail(error: Error): void;
}

/** Snapshots of one machine: one at a time, the next waits or is refused, and the machine's end aborts them. */
import { AbortError } from '../../base/errors.js';
import { TurnQueue } from '../../base/turn-queue.js';
import { busyError } from './save-machine.js';
import type { SnapshotOptions } from './options.js';

export class SavingTurns {
  readonly #turns = new TurnQueue();
  /** Those that run or wait. */
  readonly #ended = new AbortController();
  readonly #all = new Map<AbortController, Promise<unknown>>();

  /** @throws VmmError ERR_STATE when it is to be refused; AbortError; what `save` throws. */
  async run<T>(
    name: string,
    { whenBusy = 'queue', signal }: SnapshotOptions,
    save: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    if (signal?.aborted === true) throw new AbortError(signal);
    if (whenBusy === 'refuse' && this.#all.size > 0) throw busyError(name);
    const end = new AbortController();
    const any = signal ? AbortSignal.any([signal, end.signal]) : end.signal;
    const saved = this.#turns.run(() => save(any), any);
    this.#all.set(end, saved);
    try {
      return await saved;
    } finally {
      this.#all.delete(end);
    }
  }

  get isBusy(): boolean {
    return this.#all.size > 0;
  }

  /** The machine has ended. */
  end(): void {
    this.#ended.abort(new Error('the machine has ended'));
  }

  /** Fires when the machine ends. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Aborts them; resolves when nothing of them is under way. */
  async stop(): Promise<void> {
    for (const end of this.#all.keys()) end.abort(new Error('the machine has ended'));
    await Promise.allSettled(this.#all.values());
  }
}

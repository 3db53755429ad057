/**
 * The flush that a disk owes after a change of its backend. What was written to the old backend while it drained becomes
 * durable behind the switch, so that the device need not stand still for it; the guest's next flushes end after it, and
 * report its failure, as a disk does that loses what its cache held.
 *
 *   paid --begin()--> running --done--> paid
 *    |                   \--failed--> failed --the next flush reports it--> paid
 *    +--fail()--------------------------^
 */
import type { BlockBackend, BlockDone, BlockError } from './contract.js';

export class OwedFlush {
  #running = false;
  #failure: BlockError | undefined;
  #waiting: BlockDone[] = [];

  /** Flushes what served before; resolves at the end with its error. One at a time. */
  begin(backend: BlockBackend): Promise<BlockError | undefined> {
    this.#running = true;
    return new Promise((resolve) => {
      backend.flush!((error) => {
        this.#running = false;
        this.#failure ??= error;
        const waiting = this.#waiting;
        this.#waiting = [];
        if (waiting.length > 0) {
          const failure = this.#take();
          for (const paid of waiting) paid(failure);
        }
        resolve(error);
      });
    });
  }

  /** What served before could not be flushed, and was left all the same. */
  fail(error: BlockError): void {
    this.#failure ??= error;
  }

  /** Calls `paid` when nothing is owed any more, or with what made that impossible; at once where it is known. */
  settle(paid: BlockDone): void {
    if (this.#running) this.#waiting.push(paid);
    else paid(this.#take());
  }

  #take(): BlockError | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }
}

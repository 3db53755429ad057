/**
 * Counts accesses that no device claims, by address and in bounded memory, and logs them at a bounded rate.
 * A guest probes many absent devices while it boots; that is no mistake, so the log level is debug.
 */
import type { Clock } from '../base/clock.js';
import { type Logger, RateLimit } from '../base/logger.js';

/** Addresses that are counted one by one; further ones share a counter. */
const MAX_ADDRESSES = 256;

export class UnclaimedCounter {
  readonly #space: string;
  readonly #logger: Logger;
  readonly #rateLimit: RateLimit;
  readonly #counts = new Map<number, { reads: number; writes: number }>();
  #others = 0;

  constructor(space: string, clock: Clock, logger: Logger) {
    this.#space = space;
    this.#logger = logger;
    this.#rateLimit = new RateLimit(clock, { burst: 32, refillNs: 1_000_000_000n });
  }

  count(address: number, size: number, isWrite: boolean): void {
    let entry = this.#counts.get(address);
    if (entry === undefined) {
      if (this.#counts.size >= MAX_ADDRESSES) {
        this.#others++;
        return;
      }
      entry = { reads: 0, writes: 0 };
      this.#counts.set(address, entry);
    }
    const isFirst = entry.reads + entry.writes === 0;
    if (isWrite) entry.writes++;
    else entry.reads++;
    if (!isFirst) return;
    this.#rateLimit.run((droppedBefore) =>
      this.#logger.log('debug', `no device at ${this.#space} 0x${address.toString(16)}`, {
        access: isWrite ? 'write' : 'read',
        size,
        droppedBefore,
      }),
    );
  }

  inspect(): unknown {
    return {
      addresses: Object.fromEntries(
        [...this.#counts].map(([address, counts]) => [`0x${address.toString(16)}`, { ...counts }]),
      ),
      others: this.#others,
    };
  }
}

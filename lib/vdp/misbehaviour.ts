/**
 * What a driver does against the rules: counted by kind, and logged at a bounded rate, so that a guest can neither stop a
 * device unseen nor fill a disk. Kinds are few and fixed; what the guest chose stands in the detail.
 */
import type { Clock } from '../base/clock.js';
import { type Logger, RateLimit } from '../base/logger.js';

export class Misbehaviour {
  readonly #device: string;
  readonly #logger: Logger;
  readonly #rateLimit: RateLimit;
  readonly #counts = new Map<string, number>();

  constructor(device: string, clock: Clock, logger: Logger) {
    this.#device = device;
    this.#logger = logger;
    this.#rateLimit = new RateLimit(clock, { burst: 8, refillNs: 1_000_000_000n });
  }

  count(kind: string, detail?: string): void {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    this.#rateLimit.run((droppedBefore) =>
      this.#logger.log('warn', `${this.#device}: the driver broke a rule: ${kind}`, { detail, droppedBefore }),
    );
  }

  /** How often each kind was seen. */
  inspect(): Record<string, number> {
    return Object.fromEntries(this.#counts);
  }
}

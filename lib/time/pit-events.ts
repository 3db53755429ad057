/**
 * The events of a guest's time and a small emitter for them. Listeners are called at once and in order; one that throws is
 * reported to the log and hinders neither the others nor the control loop.
 */
import type { Clock } from '../base/clock.js';
import { RateLimit, type Logger } from '../base/logger.js';

export interface LagEvent {
  /** Ticks of the programmed period, negative when the guest is ahead. */
  readonly owed: number;
  readonly lagMs: number;
  readonly firingHz: number;
}

export interface PitEvents {
  /** An episode of catching up begins. */
  'catch-up': LagEvent;
  /** The guest is ahead, and its ticks come later. */
  'slow-down': LagEvent;
  /** Back to the nominal rate. */
  nominal: LagEvent & { readonly episodeMs: number };
  /** The guest does not keep up: the rate is bounded. */
  storm: { readonly limitHz: number; readonly firingHz: number };
  /** The guest has loaded another rate, another mode, or the same anew. */
  reprogrammed: { readonly count: number; readonly mode: number; readonly programmedHz: number };
  /** More was owed than will be paid. */
  'gave-up': { readonly forgiven: number; readonly forgivenMs: number };
  /** The policy is not asked any more, for the reason named. */
  'stand-down': { readonly reason: StandDownReason };
  /** The policy threw or answered nonsense: the kernel's reinjection stands in for it. */
  'policy-fault': { readonly fault: string };
  /** The guest takes a slowed PIT for a broken one and reloads it: from now on a lead is left alone. */
  'slow-down-refused': { readonly reloads: number };
}

export type StandDownReason =
  /** Channel 0 was never loaded. */
  | 'unprogrammed'
  /** Modes 0, 1, 4, 5: the guest asks for single ticks. */
  | 'one-shot'
  /** It reprograms faster than it can be followed. */
  | 'reprogrammed-too-often'
  /** Ticks are fired and none is seen to be taken (AVIC). */
  | 'source-unavailable'
  /** The port refused a change. */
  | 'port-failed';

type Listener<E> = (event: E) => void;

export class PitEmitter {
  readonly #logger: Logger;
  readonly #rateLimit: RateLimit;
  readonly #listeners = new Map<keyof PitEvents, Set<Listener<never>>>();

  constructor(logger: Logger, clock: Clock) {
    this.#logger = logger;
    this.#rateLimit = new RateLimit(clock, { burst: 4, refillNs: 10_000_000_000n });
  }

  /** Adds a listener; the result removes it. @throws TypeError for an event that does not exist. */
  on<K extends keyof PitEvents>(name: K, listener: Listener<PitEvents[K]>): () => void {
    if (!NAMES.includes(name)) throw new TypeError(`pit: there is no event '${name}'`);
    if (typeof listener !== 'function') throw new TypeError('pit: the listener is no function');
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  emit<K extends keyof PitEvents>(name: K, event: PitEvents[K]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])] as Listener<PitEvents[K]>[]) {
      try {
        listener(event);
      } catch (error) {
        this.#rateLimit.run((droppedBefore) =>
          this.#logger.log('error', `a listener of the pit event '${name}' threw`, {
            error: String(error),
            droppedBefore,
          }),
        );
      }
    }
  }
}

const NAMES: readonly string[] = [
  'catch-up',
  'slow-down',
  'nominal',
  'storm',
  'reprogrammed',
  'gave-up',
  'stand-down',
  'policy-fault',
  'slow-down-refused',
] satisfies (keyof PitEvents)[];

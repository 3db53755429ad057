/**
 * Which phase a guest's time is in, and the episodes of catching up and slowing down: their speed so far, their number, and the events
 * that tell of them. It follows decisions and makes none.
 *
 *   stand-down <--> nominal <--> catch-up | slow-down
 */
import { UNITS_PER_NS } from './counts.js';
import type { TickLedger } from './ledger.js';
import type { PitEmitter, StandDownReason } from './pit-events.js';
import type { PolicyInput, PolicyPhase } from './policy.js';

export class Episodes {
  readonly #events: PitEmitter;
  readonly #ledger: TickLedger;
  readonly #onEnd: () => void;
  #phase: PolicyPhase | 'stand-down' = 'stand-down';
  #reason: StandDownReason | undefined = 'unprogrammed';
  #speed = 1;
  #startedNs: bigint | undefined;
  #count: number;

  constructor(events: PitEmitter, ledger: TickLedger, onEnd: () => void, count = 0) {
    this.#events = events;
    this.#ledger = ledger;
    this.#onEnd = onEnd;
    this.#count = count;
  }

  get phase(): PolicyPhase | 'stand-down' {
    return this.#phase;
  }

  get standDownReason(): StandDownReason | undefined {
    return this.#reason;
  }

  /** How often catching up began. */
  get count(): number {
    return this.#count;
  }

  /** For the policy, which knows no stand-down. */
  get view(): PolicyInput['episode'] {
    const phase = this.#phase === 'stand-down' ? 'nominal' : this.#phase;
    return { phase, speed: this.#speed, startedNs: this.#startedNs };
  }

  /** A decision was made: `speed` is that of its count, in nominal rates. */
  enter(nowNs: bigint, phase: PolicyPhase, speed: number, firingHz: number): void {
    const before = this.#phase;
    this.#phase = phase;
    this.#reason = undefined;
    if (phase === 'catch-up') this.#speed = Math.max(before === phase ? this.#speed : 1, speed);
    if (before === phase) return;
    const event = {
      owed: Number(this.#ledger.owedTicks),
      lagMs: Number(this.#ledger.owedUnits / UNITS_PER_NS) / 1e6,
      firingHz,
    };
    if (phase === 'nominal') {
      const episodeMs = this.#startedNs === undefined ? 0 : Number(nowNs - this.#startedNs) / 1e6;
      this.#end();
      this.#events.emit('nominal', { ...event, episodeMs });
      return;
    }
    if (phase === 'catch-up') this.#count++;
    this.#startedNs = nowNs;
    this.#events.emit(phase, event);
  }

  standDown(reason: StandDownReason): void {
    const isNews = this.#reason !== reason;
    this.#phase = 'stand-down';
    this.#reason = reason;
    if (!isNews) return;
    this.#end();
    this.#events.emit('stand-down', { reason });
  }

  #end(): void {
    this.#speed = 1;
    this.#startedNs = undefined;
    this.#onEnd();
  }
}

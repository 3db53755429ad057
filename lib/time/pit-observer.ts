/**
 * What the looks of the controller find: it tells the guest's loads from the host's, books each window, follows the guest's
 * programming with the nominal rate and its bounds, and speaks of what it found. It decides nothing and loads nothing.
 */
import type { Logger } from '../base/logger.js';
import { boundsFor, type PitBounds, type PitConfig } from './configuration.js';
import { minBigint } from './counts.js';
import type { Episodes } from './episodes.js';
import type { TimeScale } from './ledger.js';
import { nominalOf, type Nominal } from './nominal.js';
import type { PitEmitter } from './pit-events.js';
import type { PitLook, PitPort, PitReading } from './pit-port.js';
import type { PitSteering } from './pit-steering.js';
import { hzOfCount, type PitControllerState } from './pit-status.js';
import { ReprogramWatch } from './reprogram-watch.js';
import type { TimeBooks } from './time-books.js';

export interface ObserverParts {
  readonly port: PitPort;
  readonly config: PitConfig;
  readonly books: TimeBooks;
  readonly steering: PitSteering;
  readonly episodes: Episodes;
  readonly events: PitEmitter;
  readonly logger: Logger;
  readonly timeScale: TimeScale;
  readonly restored: PitControllerState | undefined;
}

/** A guest that reloads a slowed PIT this often takes it for broken (Linux, drivers/clocksource/i8253.c). */
const SLOW_DOWN_RELOADS = 2;

export class PitObserver {
  readonly watch = new ReprogramWatch();
  readonly #parts: ObserverParts;
  #wantedScale: TimeScale;
  #nominal: Nominal;
  #bounds: PitBounds;
  #pausedSinceNs: bigint | undefined;
  #isFrozen = false;
  #reprograms: number;
  #storms: number;
  #slowDownReloads: number;

  constructor(parts: ObserverParts) {
    const { restored } = parts;
    this.#parts = parts;
    this.#wantedScale = parts.timeScale;
    this.#nominal = nominalOf(0, 0, parts.timeScale, parts.port.minPeriodNs);
    this.#bounds = boundsFor(parts.config, undefined, this.#nominal.periodNs);
    this.#reprograms = restored?.reprograms ?? 0;
    this.#storms = restored?.storms ?? 0;
    this.#slowDownReloads = restored?.slowDownReloads ?? 0;
  }

  get nominal(): Nominal {
    return this.#nominal;
  }

  get bounds(): PitBounds {
    return this.#bounds;
  }

  get reprograms(): number {
    return this.#reprograms;
  }

  get storms(): number {
    return this.#storms;
  }

  get slowDownReloads(): number {
    return this.#slowDownReloads;
  }

  /** The guest has not shown that it takes a slowed PIT for a broken one. */
  get maySlowDown(): boolean {
    return this.#slowDownReloads < SLOW_DOWN_RELOADS;
  }

  /** Books a window that ends with a reading. False when the guest is in the middle of a reload. */
  observe(nowNs: bigint, delivered: bigint, reading: PitReading): boolean {
    const { program } = this.#parts.steering;
    switch (program.classify(reading, nowNs)) {
      case 'reprogrammed':
        this.#reprogrammed(nowNs, delivered, reading);
        return true;
      case 'expired':
        // Native code was faster than its message.
        this.#expired(program.expiry?.atNs ?? nowNs);
        this.book(nowNs, delivered);
        return true;
      case 'control-word':
        this.book(nowNs, delivered);
        program.adoptMode(reading.mode);
        this.#parts.books.ledger.reprogram(nowNs, program.own.count, reading.mode);
        this.renewNominal(nowNs);
        if (!this.#nominal.periodic) this.#parts.books.standDown(nowNs);
        return false;
      case 'mid-write':
        this.book(nowNs, delivered);
        return false;
      case 'same':
        this.book(nowNs, delivered);
        return true;
    }
  }

  /** Books a window that native code has found calm, while JavaScript did not look. */
  bookCalm({ atNs, delivered, vcpuCpuNs }: PitLook): void {
    // One that another look has overtaken tells nothing.
    if (atNs > this.#parts.books.closedAt.ns) this.book(atNs, delivered, vcpuCpuNs);
  }

  /** Books a window of steady programming. `vcpuCpuNs`: of its end, which has passed. */
  book(nowNs: bigint, delivered: bigint, vcpuCpuNs?: readonly bigint[]): void {
    this.accountPause(nowNs);
    const { books, steering, events, logger } = this.#parts;
    const findings = books.book(nowNs, delivered, this.#nominal.periodic, {
      replayed: steering.reinjects,
      nominalHz: this.#nominal.hz,
      held: this.watch.isFlooded,
      vcpuCpuNs,
    });
    if (findings.storm) {
      this.#storms++;
      events.emit('storm', { limitHz: books.storm.limitHz, firingHz: books.firing.hz });
    }
    if (findings.sourceChanged) this.#onSourceChanged(nowNs);
    if (this.watch.calm(nowNs)) logger.log('info', 'pit: the guest reprograms at a bearable rate again');
  }

  /** Native code has put back what it was told to, at `atNs`, as the outcome says. */
  bookExpiry(atNs: bigint, delivered: bigint): void {
    const { books, steering } = this.#parts;
    const { expiry } = steering.program;
    if (!expiry) return;
    this.book(atNs, delivered);
    steering.program.loaded(expiry.load, undefined);
    books.load(expiry.load.count);
  }

  /** The programming that the guest has when the controller starts; it is no event. */
  adoptFirst(nowNs: bigint, delivered: bigint, reading: PitReading): void {
    this.#parts.steering.program.adopt(reading);
    this.#parts.books.reprogram(nowNs, delivered, reading.count, reading.mode, true);
    this.renewNominal(nowNs);
  }

  setTimeScale(nowNs: bigint, scale: TimeScale): void {
    this.#wantedScale = scale;
    this.renewNominal(nowNs);
  }

  /** The nominal rate and its bounds, for the programming and the time scale in force. */
  renewNominal(nowNs: bigint): void {
    const { port, config, books, steering, logger } = this.#parts;
    const { count, mode } = steering.program.own;
    this.#nominal = nominalOf(count, mode, this.#wantedScale, port.minPeriodNs);
    books.ledger.setTimeScale(nowNs, this.#nominal.scale);
    const { periodic, periodNs, hz } = this.#nominal;
    const bounds = boundsFor(config, periodic ? hzOfCount(count) : undefined, periodNs);
    if (bounds.capIsClamped && !this.#bounds.capIsClamped) {
      const rates = { maxRateHz: config.maxRateHz, nominalHz: hz };
      logger.log('warn', 'pit: maxRateHz is below the programmed rate, so nothing can be caught up', rates);
    }
    this.#bounds = bounds;
  }

  get isPaused(): boolean {
    return this.#pausedSinceNs !== undefined;
  }

  pause(nowNs: bigint, clock: 'count' | 'freeze'): void {
    this.#pausedSinceNs = nowNs;
    this.#isFrozen = clock === 'freeze';
    if (this.#isFrozen) this.#parts.books.ledger.freeze(nowNs);
  }

  resume(nowNs: bigint): void {
    this.accountPause(nowNs);
    this.#pausedSinceNs = undefined;
    if (this.#isFrozen) this.#parts.books.ledger.unfreeze(nowNs);
    this.#isFrozen = false;
  }

  /** Tells the books of the part of a pause that has passed. */
  accountPause(nowNs: bigint): void {
    if (this.#pausedSinceNs === undefined || nowNs <= this.#pausedSinceNs) return;
    this.#parts.books.paused(nowNs - this.#pausedSinceNs, this.#isFrozen);
    this.#pausedSinceNs = nowNs;
  }

  #expired(atNs: bigint): void {
    const { books, steering } = this.#parts;
    const { expiry } = steering.program;
    if (!expiry) return;
    books.expire(atNs, expiry.load.count);
    steering.program.loaded(expiry.load, undefined);
  }

  #reprogrammed(nowNs: bigint, delivered: bigint, reading: PitReading): void {
    this.accountPause(nowNs);
    const { books, steering, episodes, events } = this.#parts;
    const { own, inForce } = steering.program;
    const isSame = reading.count === own.count && reading.mode === own.mode;
    if (episodes.phase === 'slow-down' && isSame && inForce.count > own.count) {
      this.#slowDownReloads++;
      if (!this.maySlowDown) events.emit('slow-down-refused', { reloads: this.#slowDownReloads });
    }
    this.#reprograms++;
    books.reprogram(nowNs, delivered, reading.count, reading.mode, steering.reinjects);
    steering.program.adopt(reading);
    this.renewNominal(nowNs);
    if (this.watch.note(nowNs)) books.standDown(nowNs);
    const programmedHz = this.#nominal.periodic ? hzOfCount(reading.count) : 0;
    events.emit('reprogrammed', { count: reading.count, mode: reading.mode, programmedHz });
  }

  #onSourceChanged(nowNs: bigint): void {
    const { books, logger } = this.#parts;
    const { health, ledger, firing } = books;
    logger.log('debug', 'pit: whether acknowledged ticks can be counted has changed', { source: health.state });
    if (health.state !== 'unavailable') return;
    // Nobody knows whether the ticks of the silence were taken; they are not owed.
    const silent = health.silentNs / firing.periodNs;
    if (books.isBegun && ledger.owedTicks > 0n) ledger.forgive(minBigint(ledger.owedTicks, silent));
    books.standDown(nowNs);
  }
}

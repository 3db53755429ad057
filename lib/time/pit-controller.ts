/**
 * The control loop of a guest's time: looks at the PIT every control period, books what it finds (time-books.ts), asks the policy
 * (policy-guard.ts) and carries out its decision when that differs from what is in force. It holds no rule about time of its
 * own; it never waits for the guest, and every raised rate it asks for ends by itself in native code.
 *
 *   look -> book the window -> reprogrammed? adopt -> decide -> change (vCPUs held) -> book -> decide once more
 *
 * Rows T1 to T10 (US8533709B2). Times are of the injected monotonic clock alone.
 */
import type { Clock, Timer } from '../base/clock.js';
import { silentLogger, type Logger } from '../base/logger.js';
import {
  boundsFor,
  checkPitOptions,
  timeScaleBounds,
  toTimeScale,
  type PitBounds,
  type PitConfig,
  type PitOptions,
  type PolicyName,
} from './configuration.js';
import { floorDiv, isPeriodic, kernelPeriodNs, minBigint, UNITS_PER_NS } from './counts.js';
import type { ReadMemory } from './feedback.js';
import { GuestProgram } from './guest-program.js';
import { TickLedger } from './ledger.js';
import { nominalOf, type Nominal } from './nominal.js';
import { PitEmitter, type PitEvents, type StandDownReason } from './pit-events.js';
import type { PitChange, PitOutcome, PitPort, PitReading } from './pit-port.js';
import { causesStatus, hzOfCount, ledgerStatus, type PitControllerState, type PitStatus } from './pit-status.js';
import { PolicyGuard, type CheckedDecision } from './policy-guard.js';
import type { PitPolicy, PolicyInput, PolicyPhase } from './policy.js';
import { ReprogramWatch } from './reprogram-watch.js';
import { TimeBooks, type WindowContext } from './time-books.js';

export interface PitControllerOptions {
  readonly clock: Clock;
  readonly port: PitPort;
  /** Checked by the constructor. */
  readonly pit?: PitOptions;
  /** For `pit.feedback`: a copy of guest memory; throws where there is none. */
  readonly readMemory?: ReadMemory;
  readonly logger?: Logger;
  /** Of the machine that this one goes on from. Its channel 0 must have been restored already. */
  readonly state?: PitControllerState;
}

/** While something is owed, and otherwise. */
const BUSY_PERIOD_NS = 20_000_000n;
const IDLE_PERIOD_NS = 100_000_000n;
const MAX_EXPIRY_NS = 5n * BUSY_PERIOD_NS;
const LONGEST_WAIT_NS = 100_000_000n;
/** A guest that reloads a slowed PIT this often takes it for broken (Linux, drivers/clocksource/i8253.c). */
const SLOW_DOWN_RELOADS = 2;

export class PitController {
  readonly #clock: Clock;
  readonly #port: PitPort;
  readonly #config: PitConfig;
  readonly #logger: Logger;
  readonly #guard: PolicyGuard;
  readonly #books: TimeBooks;
  readonly #events: PitEmitter;
  readonly #reprogramWatch = new ReprogramWatch();
  readonly #restored: PitControllerState | undefined;
  #program: GuestProgram;
  #nominal: Nominal;
  #bounds: PitBounds;
  #wantedScale;

  #life: 'new' | 'running' | 'stopped' | 'closed' = 'new';
  #timer: Timer | undefined;
  #changing: Promise<void> | undefined;
  #mayDecideAgain = true;
  #pausedSinceNs: bigint | undefined;
  #isFrozen = false;

  #phase: PolicyPhase | 'stand-down' = 'stand-down';
  #standDownReason: StandDownReason | undefined = 'unprogrammed';
  #portFailed = false;
  #speed = 1;
  #startedNs: bigint | undefined;
  #reinject: boolean | undefined;
  #slowDownReloads = 0;
  #reportedFault: string | undefined;
  #episodes = 0;
  #storms = 0;
  #reprograms = 0;
  #looks = 0;
  #changes = 0;
  #acknowledgedBase = 0n;

  /** @throws TypeError, RangeError for options that are impossible, or a state of an unknown version. */
  constructor(options: PitControllerOptions) {
    const { clock, port, state } = options;
    this.#clock = clock;
    this.#port = port;
    this.#config = checkPitOptions(options.pit);
    if (this.#config.feedback && !options.readMemory) throw new TypeError('readMemory: wanted for pit.feedback');
    this.#logger = options.logger ?? silentLogger;
    this.#guard = new PolicyGuard(this.#config.policy);
    this.#events = new PitEmitter(this.#logger, clock);
    this.#wantedScale = this.#config.timeScale;
    const ledgerOptions = { nowNs: clock.nowNs(), minPeriodNs: port.minPeriodNs };
    if (state && (state.version as unknown) !== 1) {
      throw new RangeError(`pit state: version ${JSON.stringify(state.version)} is not known, only 1`);
    }
    const ledger = state ? TickLedger.fromState(state.ledger, ledgerOptions) : new TickLedger(ledgerOptions);
    if (state) this.#wantedScale = ledger.timeScale;
    this.#restored = state;
    this.#books = new TimeBooks(port, ledger, this.#config, options.readMemory);
    this.#program = new GuestProgram({ count: 0, mode: 0, latch: 0, midWrite: false });
    this.#nominal = nominalOf(0, 0, this.#wantedScale, port.minPeriodNs);
    this.#bounds = boundsFor(this.#config, undefined, this.#nominal.periodNs);
    if (state) {
      this.#slowDownReloads = state.slowDownReloads;
      this.#episodes = state.episodes;
      this.#storms = state.storms;
      this.#reprograms = state.reprograms;
    }
  }

  /** Begins to look after the guest's time: when its vCPUs are about to run for the first time. */
  start(): void {
    if (this.#life !== 'new') return;
    this.#life = 'running';
    this.#port.onExpired = (outcome) => this.#onExpired(outcome);
    const nowNs = this.#clock.nowNs();
    const delivered = this.#port.delivered();
    const reading = this.#port.read();
    this.#acknowledgedBase = delivered;
    const saved = this.#restored;
    if (saved && isRestored(saved, reading)) {
      this.#program = GuestProgram.restored(saved.own, { count: reading.count, latch: reading.latch });
      this.#books.open(nowNs, saved.isBegun && isPeriodic(saved.own.count, saved.own.mode));
      this.#books.firing.load(reading.count, false);
      this.#renewNominal(nowNs);
    } else {
      this.#books.open(nowNs, false);
      this.#program.adopt(reading);
      this.#books.reprogram(nowNs, delivered, reading.count, reading.mode, true);
      this.#renewNominal(nowNs);
    }
    this.#decide(nowNs);
    this.#schedule();
  }

  /** The vCPUs have been parked. With 'freeze' the guest's time stands still, with 'count' the pause is a loss. */
  pause({ clock = 'count' }: { readonly clock?: 'count' | 'freeze' } = {}): void {
    if (this.#life !== 'running' || this.#pausedSinceNs !== undefined) return;
    this.#look();
    const nowNs = this.#clock.nowNs();
    this.#pausedSinceNs = nowNs;
    this.#isFrozen = clock === 'freeze';
    if (this.#isFrozen) this.#books.ledger.freeze(nowNs);
    this.#timer?.cancel();
  }

  /** The vCPUs are about to run again. */
  resume(): void {
    if (this.#life !== 'running' || this.#pausedSinceNs === undefined) return;
    const nowNs = this.#clock.nowNs();
    this.#accountPause(nowNs);
    this.#pausedSinceNs = undefined;
    if (this.#isFrozen) this.#books.ledger.unfreeze(nowNs);
    this.#isFrozen = false;
    this.#look();
    this.#schedule();
  }

  /** Ends the loop and puts the guest's own reload value back. The PIT then fires as the guest programmed it. */
  async stop(): Promise<void> {
    if (this.#life === 'closed') return;
    const wasRunning = this.#life === 'running';
    this.#life = 'stopped';
    this.#timer?.cancel();
    await this.#changing;
    if (!wasRunning || !this.#program.isOurs) return;
    const { count, latch } = this.#program.own;
    const change = { expected: this.#program.expected, load: { count, latch }, waitForTickNs: 0n };
    await this.#carryOut(change);
  }

  /** Ends everything at once; the PIT is not touched any more. Idempotent. */
  close(): void {
    this.#life = 'closed';
    this.#timer?.cancel();
    this.#port.onExpired = undefined;
  }

  /** Adds an amount of the host's time that the clock has not shown, such as that between a snapshot and its restore. */
  owe(ns: bigint): void {
    this.#books.ledger.owe(ns);
  }

  /** Another policy from now on. @throws TypeError when it is neither a policy's name nor a function. */
  setPolicy(policy: PolicyName | PitPolicy): void {
    this.#guard.set(policy);
    this.#reportedFault = undefined;
    if (this.#life === 'running' && this.#pausedSinceNs === undefined) this.#look();
  }

  /** Virtual time against the host's: 2 runs a guest that keeps time by ticks twice as fast. */
  get timeScale(): number {
    const { numerator, denominator } = this.#nominal.scale;
    return Number(numerator) / Number(denominator);
  }

  /** @throws TypeError when it is no number; RangeError outside 0.1 to 10, or what the kernel can fire of this rate. */
  set timeScale(factor: number) {
    const scale = toTimeScale(factor);
    if (this.#nominal.periodic) {
      const { min, max } = timeScaleBounds(this.#program.own.count, this.#port.minPeriodNs);
      if (factor < min || factor > max) {
        throw new RangeError(
          `pit.timeScale: ${factor} is not from ${round(min)} to ${round(max)}: the guest programmed ` +
            `${round(hzOfCount(this.#program.own.count))} Hz`,
        );
      }
    }
    this.#wantedScale = scale;
    if (this.#life === 'running' && this.#pausedSinceNs === undefined) this.#look();
    this.#renewNominal(this.#clock.nowNs());
    if (this.#life === 'running' && this.#pausedSinceNs === undefined) this.#decide(this.#clock.nowNs());
  }

  /** Adds a listener; the result removes it. @throws TypeError for an event that does not exist. */
  on<K extends keyof PitEvents>(name: K, listener: (event: PitEvents[K]) => void): () => void {
    return this.#events.on(name, listener);
  }

  status(): PitStatus {
    const { ledger, causes, storm, health, feedback, feedbackFault } = this.#books;
    const nowNs = this.#life === 'running' ? this.#clock.nowNs() : 0n;
    const { own, inForce } = this.#program;
    const periodic = this.#nominal.periodic;
    return {
      programmedHz: periodic ? hzOfCount(own.count) : 0,
      firingHz: periodic ? 1e9 / Number(kernelPeriodNs(inForce.count, this.#port.minPeriodNs)) : 0,
      phase: this.#phase,
      ...ledgerStatus(ledger, this.#books.owedNow(nowNs)),
      episodes: this.#episodes,
      storms: this.#storms,
      reprograms: this.#reprograms,
      policy: this.#guard.name,
      policyFault: this.#guard.fault,
      standDownReason: this.#standDownReason,
      profile: this.#bounds.profile.name,
      nominalHz: periodic ? this.#nominal.hz : 0,
      isClamped: this.#nominal.isClamped,
      maxRateHz: periodic ? this.#bounds.maxRateHz : 0,
      capIsClamped: this.#bounds.capIsClamped,
      timeScale: this.timeScale,
      source: health.state,
      feedback: feedback && feedbackFault === undefined ? 'guest-memory' : 'acknowledgements',
      feedbackFault,
      feedbackJumps: feedback?.jumps ?? 0,
      causes: causesStatus(causes),
      stormLimitHz: storm.active ? storm.limitHz : undefined,
      slowDown: this.#slowDownReloads >= SLOW_DOWN_RELOADS ? 'refused' : 'allowed',
      unseenReprograms: this.#books.unseen,
      reinject: this.#reinject ?? true,
      acknowledged: Number(this.#port.delivered() - this.#acknowledgedBase),
      controlPeriods: this.#looks,
      changes: this.#changes,
    };
  }

  /** For a snapshot: taken while the machine is paused, together with channel 0 as it is. */
  state(): PitControllerState {
    if (this.#life === 'running' && !this.#changing) {
      this.#observe(this.#clock.nowNs(), this.#port.delivered(), this.#port.read());
    }
    return {
      version: 1,
      ledger: this.#books.ledger.state(),
      own: { ...this.#program.own },
      inForce: { count: this.#program.inForce.count, latch: this.#program.inForce.latch },
      isBegun: this.#books.isBegun,
      slowDownReloads: this.#slowDownReloads,
      episodes: this.#episodes,
      storms: this.#storms,
      reprograms: this.#reprograms,
    };
  }

  // --- Looking ---

  #schedule(): void {
    this.#timer?.cancel();
    if (this.#life !== 'running' || this.#pausedSinceNs !== undefined) return;
    const busy =
      this.#phase === 'catch-up' || this.#phase === 'slow-down' || this.#reprogramWatch.isRecent(this.#clock.nowNs());
    this.#timer = this.#clock.setTimer(busy ? BUSY_PERIOD_NS : IDLE_PERIOD_NS, () => {
      if (this.#life !== 'running') return;
      this.#look();
      this.#schedule();
    });
  }

  #look(): void {
    // While a change is under way its outcome tells more exactly what there is to see.
    if (this.#changing) return;
    this.#looks++;
    this.#mayDecideAgain = true;
    const delivered = this.#port.delivered();
    const reading = this.#port.read();
    const nowNs = this.#clock.nowNs();
    const isSettled = this.#observe(nowNs, delivered, reading);
    if (isSettled) this.#decide(nowNs);
  }

  /** Books a window that ends with a reading. False when the guest is in the middle of a reload. */
  #observe(nowNs: bigint, delivered: bigint, reading: PitReading): boolean {
    const kind = this.#program.classify(reading, nowNs);
    if (kind === 'reprogrammed') {
      this.#adopt(nowNs, delivered, reading);
      return true;
    }
    const expiry = this.#program.expiry;
    if (kind === 'expired' && expiry) {
      // Native code was faster than its message. The ticks are booked with the window that ends now.
      this.#book(nowNs, delivered, expiry.atNs);
      return true;
    }
    this.#book(nowNs, delivered);
    if (kind === 'control-word') {
      this.#program.adoptMode(reading.mode);
      this.#books.ledger.reprogram(nowNs, this.#program.own.count, reading.mode);
      this.#renewNominal(nowNs);
      if (!this.#nominal.periodic) this.#books.standDown(nowNs);
    }
    return kind === 'same';
  }

  #book(nowNs: bigint, delivered: bigint, expiredAtNs?: bigint): void {
    this.#accountPause(nowNs);
    const raised = this.#phase === 'catch-up' && this.#program.inForce.count < this.#nominal.count;
    const context: WindowContext = {
      replayed: this.#reinject ?? true,
      raised: raised && expiredAtNs === undefined,
      nominalHz: this.#nominal.hz,
      held: this.#reprogramWatch.isFlooded,
    };
    const { expiry } = this.#program;
    if (expiredAtNs !== undefined && expiry) {
      this.#books.expire(expiredAtNs, expiry.load.count);
      this.#program.loaded(expiry.load, undefined);
    }
    const { storm, sourceChanged } = this.#books.book(nowNs, delivered, this.#nominal.periodic, context);
    if (storm) {
      this.#storms++;
      this.#events.emit('storm', { limitHz: this.#books.storm.limitHz, firingHz: this.#books.firing.hz });
    }
    if (sourceChanged) this.#onSourceChanged(nowNs);
    if (this.#reprogramWatch.calm(nowNs))
      this.#logger.log('info', 'pit: the guest reprograms at a bearable rate again');
  }

  #onSourceChanged(nowNs: bigint): void {
    const { health, ledger, firing } = this.#books;
    this.#logger.log('info', 'pit: the counter of acknowledged ticks is now', { source: health.state });
    if (health.state !== 'unavailable') return;
    // Nobody knows whether the ticks of the silence were taken; they are not owed.
    const silent = health.silentNs / firing.periodNs;
    if (this.#books.isBegun && ledger.owedTicks > 0n) ledger.forgive(minBigint(ledger.owedTicks, silent));
    this.#books.standDown(nowNs);
  }

  #adopt(nowNs: bigint, delivered: bigint, reading: PitReading): void {
    this.#accountPause(nowNs);
    const { own, inForce } = this.#program;
    const isSame = reading.count === own.count && reading.mode === own.mode;
    if (this.#phase === 'slow-down' && isSame && inForce.count > own.count) {
      this.#slowDownReloads++;
      if (this.#slowDownReloads === SLOW_DOWN_RELOADS) {
        this.#events.emit('slow-down-refused', { reloads: this.#slowDownReloads });
      }
    }
    this.#reprograms++;
    this.#books.reprogram(nowNs, delivered, reading.count, reading.mode, this.#reinject ?? true);
    this.#program.adopt(reading);
    this.#renewNominal(nowNs);
    if (this.#reprogramWatch.note(nowNs)) this.#books.standDown(nowNs);
    this.#events.emit('reprogrammed', {
      count: reading.count,
      mode: reading.mode,
      programmedHz: this.#nominal.periodic ? hzOfCount(reading.count) : 0,
    });
  }

  #renewNominal(nowNs: bigint): void {
    const { count, mode } = this.#program.own;
    this.#nominal = nominalOf(count, mode, this.#wantedScale, this.#port.minPeriodNs);
    this.#books.ledger.setTimeScale(nowNs, this.#nominal.scale);
    const bounds = boundsFor(
      this.#config,
      this.#nominal.periodic ? hzOfCount(count) : undefined,
      this.#nominal.periodNs,
    );
    if (bounds.capIsClamped && !this.#bounds.capIsClamped) {
      this.#logger.log(
        'warn',
        'pit: maxRateHz is below the rate that the guest programmed, so it cannot be caught up',
        {
          maxRateHz: this.#config.maxRateHz,
          nominalHz: this.#nominal.hz,
        },
      );
    }
    this.#bounds = bounds;
  }

  #accountPause(nowNs: bigint): void {
    if (this.#pausedSinceNs === undefined || nowNs <= this.#pausedSinceNs) return;
    this.#books.paused(nowNs - this.#pausedSinceNs, this.#isFrozen);
    this.#pausedSinceNs = nowNs;
  }

  // --- Deciding ---

  #decide(nowNs: bigint): void {
    if (this.#changing || this.#life !== 'running' || this.#pausedSinceNs !== undefined) return;
    const reason = this.#reasonToStandDown();
    if (reason !== undefined) {
      this.#standDown(reason);
      if (reason === 'port-failed') return;
      const reinject = reason === 'source-unavailable' || this.#guard.reinjectsByDefault;
      this.#apply(nowNs, this.#program.own.count, reinject, undefined);
      return;
    }
    const decision = this.#guard.decide(this.#input(nowNs));
    const { fault } = this.#guard;
    if (fault !== undefined && fault !== this.#reportedFault) {
      this.#reportedFault = fault;
      this.#logger.log('error', `pit: the policy ${fault}; the kernel's reinjection stands in for it`);
      this.#events.emit('policy-fault', { fault });
    }
    this.#forgive(decision);
    this.#enter(nowNs, decision);
    this.#apply(nowNs, decision.count, decision.reinject, decision.expiryNs);
  }

  #reasonToStandDown(): StandDownReason | undefined {
    if (this.#portFailed) return 'port-failed';
    if (this.#program.own.count === 0) return 'unprogrammed';
    if (!this.#nominal.periodic) return 'one-shot';
    if (this.#reprogramWatch.isFlooded) return 'reprogrammed-too-often';
    return this.#books.health.state === 'unavailable' ? 'source-unavailable' : undefined;
  }

  #input(nowNs: bigint): PolicyInput {
    const { ledger, firing, recent, health, storm } = this.#books;
    const { scale, count, periodNs, hz, minCount, maxCount } = this.#nominal;
    const { own, expiry } = this.#program;
    const { expectedTicks, deliveredTicks, forgivenTicks, owedTicks, owedUnits } = ledger;
    const silentAfterNs = 3n * firing.periodNs > 2n * BUSY_PERIOD_NS ? 3n * firing.periodNs : 2n * BUSY_PERIOD_NS;
    return {
      nowNs,
      ledger: {
        expectedTicks,
        deliveredTicks,
        forgivenTicks,
        owedTicks,
        owedUnits,
        owedNs: floorDiv(owedUnits * scale.denominator, UNITS_PER_NS * scale.numerator),
      },
      nominal: { programmedCount: own.count, programmedHz: hzOfCount(own.count), count, periodNs, hz },
      firing: {
        count: firing.count,
        periodNs: firing.periodNs,
        sinceTickNs: firing.sinceTickNs,
        expiresInNs: expiry === undefined ? undefined : expiry.atNs - nowNs,
      },
      recent,
      silent: !this.#books.isBegun || health.silentNs >= silentAfterNs,
      episode: {
        phase: this.#phase === 'stand-down' ? 'nominal' : this.#phase,
        speed: this.#speed,
        startedNs: this.#startedNs,
      },
      storm: { limitHz: storm.limitHz, active: storm.active },
      limits: {
        ...this.#bounds,
        minPeriodNs: this.#port.minPeriodNs,
        minCount,
        maxCount,
        slowDown: this.#slowDownReloads < SLOW_DOWN_RELOADS,
        controlPeriodNs: BUSY_PERIOD_NS,
        maxExpiryNs: MAX_EXPIRY_NS,
      },
    };
  }

  #forgive({ forgiveTicks, gaveUp }: CheckedDecision): void {
    if (forgiveTicks === 0n) return;
    const { ledger } = this.#books;
    ledger.forgive(forgiveTicks);
    if (!gaveUp) return;
    const forgivenMs = Number((forgiveTicks * ledger.tickUnits) / UNITS_PER_NS) / 1e6;
    this.#events.emit('gave-up', { forgiven: Number(forgiveTicks), forgivenMs });
  }

  #enter(nowNs: bigint, { phase, count }: CheckedDecision): void {
    const firingNs = kernelPeriodNs(Math.max(1, count), this.#port.minPeriodNs);
    const before = this.#phase;
    this.#phase = phase;
    this.#standDownReason = undefined;
    if (phase === 'catch-up') {
      this.#speed = Math.max(before === phase ? this.#speed : 1, Number(this.#nominal.periodNs) / Number(firingNs));
    }
    if (before === phase) return;
    const event = {
      owed: Number(this.#books.ledger.owedTicks),
      lagMs: Number(this.#books.ledger.owedNs) / 1e6,
      firingHz: 1e9 / Number(firingNs),
    };
    if (phase === 'nominal') {
      const episodeMs = this.#startedNs === undefined ? 0 : Number(nowNs - this.#startedNs) / 1e6;
      this.#endEpisode();
      this.#events.emit('nominal', { ...event, episodeMs });
    } else {
      if (phase === 'catch-up') this.#episodes++;
      this.#startedNs = nowNs;
      this.#events.emit(phase, event);
    }
  }

  #standDown(reason: StandDownReason): void {
    const isNews = this.#standDownReason !== reason;
    this.#phase = 'stand-down';
    this.#standDownReason = reason;
    if (!isNews) return;
    this.#endEpisode();
    this.#events.emit('stand-down', { reason });
  }

  #endEpisode(): void {
    this.#speed = 1;
    this.#startedNs = undefined;
    this.#books.storm.endEpisode();
  }

  // --- Applying ---

  #apply(nowNs: bigint, count: number, reinject: boolean, expiryNs: bigint | undefined): void {
    const program = this.#program;
    const { inForce, expiry } = program;
    const target = program.loadFor(count);
    const loads = target.count !== inForce.count || target.latch !== inForce.latch;
    const periodNs = kernelPeriodNs(Math.max(1, count), this.#port.minPeriodNs);
    const leftNs = expiry === undefined ? undefined : expiry.atNs - nowNs;
    const renews =
      expiryNs !== undefined &&
      (leftNs === undefined ||
        expiryNs < leftNs - periodNs / 2n ||
        leftNs < minBigint(expiryNs - periodNs / 2n, MAX_EXPIRY_NS / 2n));
    const switches = reinject !== this.#reinject;
    if (!loads && !renews && !switches) return;
    const nominal = program.loadFor(this.#nominal.count);
    // A change without an expiry ends the one before, so one that still runs is taken along.
    const afterNs = expiryNs ?? (loads ? undefined : leftNs);
    const waits = loads && this.#nominal.periodic && this.#books.isBegun && this.#books.health.silentNs === 0n;
    const change: PitChange = {
      expected: program.expected,
      waitForTickNs: waits ? minBigint((this.#books.firing.periodNs * 5n) / 4n, LONGEST_WAIT_NS) : 0n,
      ...(loads ? { load: target } : {}),
      ...(switches ? { reinject } : {}),
      ...(afterNs === undefined || afterNs <= 0n
        ? {}
        : { expiry: { afterNs, load: expiryNs ? nominal : (expiry?.load ?? nominal) } }),
    };
    this.#changing = this.#carryOut(change);
  }

  async #carryOut(change: PitChange): Promise<void> {
    let outcome: PitOutcome;
    try {
      outcome = await this.#port.change(change);
    } catch (error) {
      this.#changing = undefined;
      if (this.#life === 'running') this.#onPortFailed(error);
      return;
    }
    this.#changing = undefined;
    if (this.#life === 'closed') return;
    this.#settle(change, outcome);
  }

  #settle(change: PitChange, outcome: PitOutcome): void {
    const { atNs, delivered } = outcome;
    if (outcome.result === 'changed') {
      this.#observe(atNs, delivered, outcome.reading);
      return;
    }
    if (outcome.result === 'busy') return;
    this.#changes++;
    this.#book(atNs, delivered);
    const { load, expiry } = change;
    this.#program.loaded(load, expiry && { atNs: atNs + expiry.afterNs, load: expiry.load });
    if (load) this.#books.load(load.count);
    this.#reinject = change.reinject ?? this.#reinject;
    // The moment of a load is known, and what is owed at it: the end of the stretch can be set exactly.
    if (load && expiry && this.#mayDecideAgain) {
      this.#mayDecideAgain = false;
      this.#decide(atNs);
    }
  }

  #onExpired(outcome: PitOutcome): void {
    const { expiry } = this.#program;
    // While a change is under way its outcome will tell; a message about an earlier expiry has been overtaken.
    if (this.#life === 'closed' || this.#changing || !expiry || outcome.atNs < expiry.atNs) return;
    if (outcome.result === 'applied') {
      this.#book(outcome.atNs, outcome.delivered);
      this.#program.loaded(expiry.load, undefined);
      this.#books.load(expiry.load.count);
    } else if (outcome.result === 'changed') {
      this.#observe(outcome.atNs, outcome.delivered, outcome.reading);
    }
    if (this.#life !== 'running' || this.#pausedSinceNs !== undefined) return;
    this.#look();
    this.#schedule();
  }

  #onPortFailed(error: unknown): void {
    this.#portFailed = true;
    this.#logger.log('error', 'pit: a change was refused; the guest keeps the rate it has', { error: String(error) });
    this.#standDown('port-failed');
  }
}

/** Whether channel 0 holds what the saved controller left in it. */
function isRestored({ own, inForce }: PitControllerState, reading: PitReading): boolean {
  const holds = (load: { count: number; latch: number }) =>
    reading.count === load.count && reading.latch === load.latch;
  return reading.mode === own.mode && (holds(inForce) || holds(own));
}

const round = (value: number) => Math.round(value * 1000) / 1000;

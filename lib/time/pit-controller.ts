/**
 * The control loop of a guest's time: looks at the PIT every control period (pit-observer.ts), asks the policy (policy-guard.ts) and
 * has its decision carried out where it differs from what is in force (pit-steering.ts). It holds no rule about time of
 * its own; it never waits for the guest, and every raised rate it asks for ends by itself in native code.
 *
 *   look -> book the window -> reprogrammed? adopt -> decide -> change (vCPUs held) -> book -> decide once more
 *
 * Rows T1 to T10 (US8533709B2). Times are of the injected monotonic clock alone.
 */
import type { Clock, Timer } from '../base/clock.js';
import { silentLogger, type Logger } from '../base/logger.js';
import { tickChannel, type TickProbe } from '../base/probes.js';
import {
  checkPitOptions,
  timeScaleBounds,
  toTimeScale,
  type PitConfig,
  type PitOptions,
  type PolicyName,
} from './configuration.js';
import { isPeriodic, kernelPeriodNs, maxBigint, minBigint, UNITS_PER_NS } from './counts.js';
import { calmOfNoTicks, calmOfTicks } from './calm.js';
import { Episodes } from './episodes.js';
import type { ReadMemory } from './feedback.js';
import { GuestProgram } from './guest-program.js';
import { TickLedger } from './ledger.js';
import { PitEmitter, type PitEvents, type StandDownReason } from './pit-events.js';
import { PitObserver } from './pit-observer.js';
import type { PitCalm, PitChange, PitOutcome, PitPort, PitReading } from './pit-port.js';
import { hzOfCount, pitStatus, type PitControllerState, type PitStatus } from './pit-status.js';
import { PitSteering } from './pit-steering.js';
import { PolicyGuard } from './policy-guard.js';
import { policyInput } from './policy-input.js';
import type { PitPolicy, PolicyInput } from './policy.js';
import { QuietWatch } from './quiet-watch.js';
import { TimeBooks } from './time-books.js';

export interface PitControllerOptions {
  /** Whose time it is, for probes. */
  readonly machineName?: string | undefined;
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

/** While something is owed, just after the guest has reprogrammed, and otherwise. */
const PAYING_PERIOD_NS = 50_000_000n;
const REPROGRAMMED_PERIOD_NS = 20_000_000n;
const IDLE_PERIOD_NS = 100_000_000n;
/** While native code looks at the idle period in JavaScript's place. */
const REST_PERIOD_NS = 2_000_000_000n;
const LONGEST_WAIT_NS = 100_000_000n;
/** Where looks are slow they come less often: they take at most one part in so many of a busy period. */
const LOOK_SHARE = 8n;

export class PitController {
  readonly #machine: string | undefined;
  readonly #clock: Clock;
  readonly #port: PitPort;
  readonly #logger: Logger;
  readonly #guard: PolicyGuard;
  readonly #books: TimeBooks;
  readonly #events: PitEmitter;
  readonly #episodes: Episodes;
  readonly #steering: PitSteering;
  readonly #observer: PitObserver;
  readonly #restored: PitControllerState | undefined;
  readonly #quiet = new QuietWatch();

  #life: 'new' | 'running' | 'stopped' | 'closed' = 'new';
  #timer: Timer | undefined;
  #mayDecideAgain = true;
  #portFailed = false;
  #reportedFault: string | undefined;
  #looks = 0;
  #lookCostNs = 0n;
  #acknowledgedBase = 0n;

  /** @throws TypeError, RangeError for options that are impossible, or a state of an unknown version. */
  constructor(options: PitControllerOptions) {
    const { clock, port, state } = options;
    this.#machine = options.machineName;
    this.#clock = clock;
    this.#port = port;
    this.#logger = options.logger ?? silentLogger;
    this.#restored = state;
    const config: PitConfig = checkPitOptions(options.pit);
    if (config.feedback && !options.readMemory) throw new TypeError('readMemory: wanted for pit.feedback');
    if (state && (state.version as unknown) !== 1) {
      throw new RangeError(`pit state: version ${JSON.stringify(state.version)} is not known, only 1`);
    }
    const ledgerOptions = { nowNs: clock.nowNs(), minPeriodNs: port.minPeriodNs };
    const ledger = state ? TickLedger.fromState(state.ledger, ledgerOptions) : new TickLedger(ledgerOptions);
    this.#guard = new PolicyGuard(config.policy);
    this.#events = new PitEmitter(this.#logger, clock);
    this.#books = new TimeBooks(port, ledger, config, options.readMemory, state?.heard);
    this.#episodes = new Episodes(this.#events, ledger, () => this.#books.storm.endEpisode(), state?.episodes);
    this.#steering = new PitSteering(port, {
      onOutcome: (change, outcome) => this.#onOutcome(change, outcome),
      onFailed: (error) => this.#onFailed(error),
    });
    this.#observer = new PitObserver({
      port,
      config,
      books: this.#books,
      steering: this.#steering,
      episodes: this.#episodes,
      events: this.#events,
      logger: this.#logger,
      timeScale: state ? ledger.timeScale : config.timeScale,
      restored: state,
    });
  }

  /** Begins to look after the guest's time: when its vCPUs are about to run for the first time. */
  start(): void {
    if (this.#life !== 'new') return;
    this.#life = 'running';
    this.#port.onExpired = (outcome) => this.#onExpired(outcome);
    this.#port.onStirred = () => this.#lookAndSchedule();
    const nowNs = this.#clock.nowNs();
    const delivered = this.#port.delivered();
    const reading = this.#port.read();
    this.#acknowledgedBase = delivered;
    const saved = this.#restored;
    if (saved && isRestored(saved, reading)) {
      const latch = reading.midWrite ? saved.own.latch : reading.latch;
      this.#steering.program = GuestProgram.restored(saved.own, { count: reading.count, latch });
      this.#books.open(nowNs, saved.isBegun && isPeriodic(saved.own.count, saved.own.mode));
      this.#books.firing.load(reading.count, false);
      this.#observer.renewNominal(nowNs);
    } else {
      this.#books.open(nowNs, false);
      this.#observer.adoptFirst(nowNs, delivered, reading);
    }
    this.#decide(nowNs);
    this.#schedule();
  }

  /** The vCPUs have been parked. With 'freeze' the guest's time stands still, with 'count' the pause is a loss. */
  pause({ clock = 'count' }: { readonly clock?: 'count' | 'freeze' } = {}): void {
    if (this.#life !== 'running' || this.#observer.isPaused) return;
    this.#look();
    this.#observer.pause(this.#clock.nowNs(), clock);
    this.#rest();
  }

  /** The vCPUs are about to run again. */
  resume(): void {
    if (this.#life !== 'running' || !this.#observer.isPaused) return;
    this.#observer.resume(this.#clock.nowNs());
    this.#lookAndSchedule();
  }

  /** Ends the loop and puts the guest's own reload value back. The PIT then fires as the guest programmed it. */
  async stop(): Promise<void> {
    if (this.#life === 'closed') return;
    const wasRunning = this.#life === 'running';
    this.#life = 'stopped';
    this.#rest();
    if (wasRunning) await this.#steering.putBack();
  }

  /** Ends everything at once; the PIT is not touched any more. Idempotent. */
  close(): void {
    this.#life = 'closed';
    this.#timer?.cancel();
    this.#port.onExpired = undefined;
    this.#port.onStirred = undefined;
  }

  /**
   * Adds an amount of the host's time that the clock has not shown, such as that between a snapshot and its restore: it is owed, or
   * forgiven at once. A guest of which no ticks were expected is owed nothing.
   */
  passTime(ns: bigint, as: 'owed' | 'forgiven'): void {
    const { ledger } = this.#books;
    const isBegun = this.#life === 'new' ? this.#restored?.isBegun === true : this.#books.isBegun;
    if (!isBegun || !ledger.counting) return;
    const before = ledger.owedUnits;
    ledger.owe(ns);
    if (as === 'forgiven') ledger.forgive((ledger.owedUnits - before) / ledger.tickUnits);
  }

  /** The policy in force, by name. */
  get policyName(): PolicyName | 'custom' {
    return this.#guard.name;
  }

  /** Resolves when no change of the PIT is under way; while the machine is paused none follows. */
  async settled(): Promise<void> {
    await this.#steering.underWay;
  }

  /** Another policy from now on. @throws TypeError when it is neither a policy's name nor a function. */
  setPolicy(policy: PolicyName | PitPolicy): void {
    this.#guard.set(policy);
    this.#reportedFault = undefined;
    this.#lookAndSchedule();
  }

  /** Virtual time against the host's: 2 runs a guest that keeps time by ticks twice as fast. */
  get timeScale(): number {
    const { numerator, denominator } = this.#observer.nominal.scale;
    return Number(numerator) / Number(denominator);
  }

  /** @throws TypeError when it is no number; RangeError outside 0.1 to 10, or what the kernel can fire of this rate. */
  set timeScale(factor: number) {
    const scale = toTimeScale(factor);
    const { count } = this.#steering.program.own;
    const { min, max } = timeScaleBounds(this.#observer.nominal.periodic ? count : 0, this.#port.minPeriodNs);
    if (factor < min || factor > max) {
      const programmed = `the guest programmed ${round(hzOfCount(count))} Hz`;
      throw new RangeError(`pit.timeScale: ${factor} is not from ${round(min)} to ${round(max)}: ${programmed}`);
    }
    if (this.#isActive) this.#look();
    this.#observer.setTimeScale(this.#clock.nowNs(), scale);
    this.#decide(this.#clock.nowNs());
    this.#schedule();
  }

  /** Adds a listener; the result removes it. @throws TypeError for an event that does not exist. */
  on<K extends keyof PitEvents>(name: K, listener: (event: PitEvents[K]) => void): () => void {
    return this.#events.on(name, listener);
  }

  status(): PitStatus {
    return pitStatus({
      books: this.#books,
      observer: this.#observer,
      steering: this.#steering,
      episodes: this.#episodes,
      guard: this.#guard,
      minPeriodNs: this.#port.minPeriodNs,
      owed: this.#books.owedNow(this.#life === 'running' ? this.#clock.nowNs() : 0n),
      timeScale: this.timeScale,
      acknowledged: this.#port.delivered() - this.#acknowledgedBase,
      looks: this.#looks,
    });
  }

  /** For a snapshot: taken while the machine is paused and settled(), together with channel 0 as it is. */
  state(): PitControllerState {
    if (this.#life === 'new' && this.#restored) return this.#stateBeforeStart(this.#restored);
    if (this.#life === 'running' && !this.#steering.underWay) this.#observe(this.#port.delivered(), this.#port.read());
    const { own, inForce } = this.#steering.program;
    const { slowDownReloads, storms, reprograms } = this.#observer;
    return {
      version: 1,
      ledger: this.#books.ledger.state(),
      own: { count: own.count, mode: own.mode, latch: own.latch },
      inForce: { count: inForce.count, latch: inForce.latch },
      isBegun: this.#books.isBegun,
      heard: this.#books.health.state === 'alive',
      slowDownReloads,
      episodes: this.#episodes.count,
      storms,
      reprograms,
    };
  }

  /** Of one that goes on from a state and has not begun yet: channel 0 holds the guest's own count. */
  #stateBeforeStart(restored: PitControllerState): PitControllerState {
    const { ledger } = this.#books;
    ledger.advance(this.#clock.nowNs());
    const { count, latch } = restored.own;
    return { ...restored, inForce: { count, latch }, ledger: ledger.state() };
  }

  get #isActive(): boolean {
    return this.#life === 'running' && !this.#observer.isPaused;
  }

  /** Nobody looks any more. */
  #rest(): void {
    this.#timer?.cancel();
    this.#port.watch(undefined);
  }

  #lookAndSchedule(): void {
    if (!this.#isActive) return;
    this.#look();
    this.#schedule();
  }

  #schedule(): void {
    this.#timer?.cancel();
    if (!this.#isActive) return;
    const { phase } = this.#episodes;
    const isPaying = phase === 'catch-up' || phase === 'slow-down';
    const isReprogrammed = this.#observer.watch.isRecent(this.#clock.nowNs());
    const isBusy = isPaying || isReprogrammed;
    const calm = isBusy ? undefined : this.#calm();
    this.#port.watch(calm);
    const shortestNs = isReprogrammed ? REPROGRAMMED_PERIOD_NS : PAYING_PERIOD_NS;
    const busyNs = minBigint(maxBigint(shortestNs, this.#lookCostNs * LOOK_SHARE), IDLE_PERIOD_NS);
    this.#timer = this.#clock.setTimer(isBusy ? busyNs : calm ? REST_PERIOD_NS : IDLE_PERIOD_NS, () => {
      if (this.#life !== 'running') return;
      const startedNs = this.#clock.nowNs();
      this.#look(true);
      this.#lookCostNs = this.#clock.nowNs() - startedNs;
      this.#schedule();
    });
  }

  /** What native code can look for in JavaScript's place; undefined while that would not do. */
  #calm(): PitCalm | undefined {
    const { program, underWay } = this.#steering;
    const { watch } = this.#observer;
    // A policy of the user's, and a clock in guest memory, have more to see than ticks.
    if (underWay || program.expiry || watch.isFlooded || this.#books.feedback || this.#guard.name === 'custom') {
      return undefined;
    }
    const found = { expected: program.expected, intervalNs: IDLE_PERIOD_NS };
    if (!this.#observer.nominal.periodic) return this.#quiet.isNoted ? calmOfNoTicks(this.#books, found) : undefined;
    const { isBegun, health } = this.#books;
    if (this.#episodes.phase !== 'nominal' || !isBegun || health.state !== 'alive') return undefined;
    return calmOfTicks(this.#books, this.#policyInput(this.#books.closedAt.ns), found);
  }

  #policyInput(nowNs: bigint): PolicyInput {
    return policyInput({
      nowNs,
      books: this.#books,
      nominal: this.#observer.nominal,
      bounds: this.#observer.bounds,
      program: this.#steering.program,
      episodes: this.#episodes,
      minPeriodNs: this.#port.minPeriodNs,
      controlPeriodNs: PAYING_PERIOD_NS,
      slowDown: this.#observer.maySlowDown,
    });
  }

  /** `byTimer`: nothing but the time has given rise to it. */
  #look(byTimer = false): void {
    // While a change is under way its outcome tells more exactly what there is to see.
    if (this.#steering.underWay) return;
    this.#looks++;
    this.#mayDecideAgain = true;
    const calm = this.#port.takeLook();
    if (calm && this.#observer.nominal.periodic) this.#observer.bookCalm(calm);
    const delivered = this.#port.delivered();
    const reading = this.#port.read();
    if (byTimer && this.#quiet.isStill(delivered, reading)) this.#books.rest(this.#clock.nowNs());
    else if (this.#observe(delivered, reading)) this.#decide(this.#clock.nowNs());
  }

  #observe(delivered: bigint, reading: PitReading): boolean {
    const isSettled = this.#observer.observe(this.#clock.nowNs(), delivered, reading);
    const { nominal, watch } = this.#observer;
    const restsOnGuest = isSettled && !nominal.periodic && !watch.isFlooded && !this.#steering.program.expiry;
    if (restsOnGuest) this.#quiet.note(delivered, reading);
    else this.#quiet.clear();
    return isSettled;
  }

  #decide(nowNs: bigint): void {
    if (this.#steering.underWay || !this.#isActive) return;
    const { program } = this.#steering;
    const { nominal } = this.#observer;
    const { health, firing, isBegun } = this.#books;
    const reason = this.#reasonToStandDown();
    if (reason !== undefined) {
      this.#episodes.standDown(reason);
      if (tickChannel.hasSubscribers) tickChannel.publish(this.#probeOf(program.own.count));
      if (reason === 'port-failed') return;
      this.#steering.steer(nowNs, {
        count: program.own.count,
        reinject: reason === 'source-unavailable' || this.#guard.reinjectsByDefault,
        expiryNs: undefined,
        nominalCount: nominal.count,
        waitForTickNs: 0n,
      });
      return;
    }
    const decision = this.#guard.decide(this.#policyInput(nowNs));
    this.#reportFault();
    this.#forgive(decision.forgiveTicks, decision.gaveUp);
    const firingNs = Number(kernelPeriodNs(Math.max(1, decision.count), this.#port.minPeriodNs));
    this.#episodes.enter(nowNs, decision.phase, Number(nominal.periodNs) / firingNs, 1e9 / firingNs);
    if (tickChannel.hasSubscribers) tickChannel.publish(this.#probeOf(decision.count));
    const comesSoon = isBegun && health.silentNs === 0n;
    this.#steering.steer(nowNs, {
      count: decision.count,
      reinject: decision.reinject,
      expiryNs: decision.expiryNs,
      nominalCount: nominal.count,
      waitForTickNs: comesSoon ? minBigint((firing.periodNs * 5n) / 4n, LONGEST_WAIT_NS) : 0n,
    });
  }

  #probeOf(count: number): TickProbe {
    const fires = count !== 0 && this.#observer.nominal.periodic;
    const firingHz = fires ? 1e9 / Number(kernelPeriodNs(count, this.#port.minPeriodNs)) : 0;
    const owed = Number(this.#books.ledger.owedTicks);
    return { machine: this.#machine, phase: this.#episodes.phase, owed, firingHz };
  }

  #reasonToStandDown(): StandDownReason | undefined {
    if (this.#portFailed) return 'port-failed';
    if (this.#steering.program.own.count === 0) return 'unprogrammed';
    if (!this.#observer.nominal.periodic) return 'one-shot';
    if (this.#observer.watch.isFlooded) return 'reprogrammed-too-often';
    return this.#books.health.state === 'unavailable' ? 'source-unavailable' : undefined;
  }

  #reportFault(): void {
    const { fault } = this.#guard;
    if (fault === undefined || fault === this.#reportedFault) return;
    this.#reportedFault = fault;
    this.#logger.log('error', `pit: the policy ${fault}; the kernel's reinjection stands in for it`);
    this.#events.emit('policy-fault', { fault });
  }

  #forgive(ticks: bigint, gaveUp: boolean): void {
    if (ticks === 0n) return;
    const { ledger } = this.#books;
    ledger.forgive(ticks);
    if (!gaveUp) return;
    const forgivenMs = Number((ticks * ledger.tickUnits) / UNITS_PER_NS) / 1e6;
    this.#events.emit('gave-up', { forgiven: Number(ticks), forgivenMs });
  }

  #onOutcome(change: PitChange, outcome: PitOutcome): void {
    if (this.#life === 'closed' || outcome.result === 'busy') return;
    const { atNs, delivered } = outcome;
    if (outcome.result === 'changed') {
      this.#observer.observe(atNs, delivered, outcome.reading);
      return;
    }
    this.#observer.book(atNs, delivered);
    this.#steering.applied(change, atNs);
    if (change.load) this.#books.load(change.load.count);
    // The moment of a load is known, and what is owed at it: the end of the stretch can be set exactly.
    if (!change.load || !change.expiry || !this.#mayDecideAgain) return;
    this.#mayDecideAgain = false;
    this.#decide(atNs);
  }

  #onExpired(outcome: PitOutcome): void {
    const { expiry } = this.#steering.program;
    // While a change is under way its outcome will tell; a message about an earlier expiry has been overtaken.
    if (this.#life === 'closed' || this.#steering.underWay || !expiry || outcome.atNs < expiry.atNs) return;
    if (outcome.result === 'applied') this.#observer.bookExpiry(outcome.atNs, outcome.delivered);
    else if (outcome.result === 'changed') {
      this.#observer.observe(outcome.atNs, outcome.delivered, outcome.reading);
    }
    this.#lookAndSchedule();
  }

  #onFailed(error: unknown): void {
    if (this.#life !== 'running') return;
    this.#portFailed = true;
    this.#logger.log('error', 'pit: a change was refused; the guest keeps the rate it has', { error: String(error) });
    this.#episodes.standDown('port-failed');
  }
}

/** Whether channel 0 holds what the saved controller left in it. */
function isRestored({ own, inForce }: PitControllerState, reading: PitReading): boolean {
  const holds = (load: { count: number; latch: number }) =>
    reading.count === load.count && reading.latch === load.latch;
  // Between the two bytes of a reload the latch holds the first of them, and the mode may be that of a control word.
  if (reading.midWrite) return reading.count === own.count || reading.count === inForce.count;
  return reading.mode === own.mode && (holds(inForce) || holds(own));
}

const round = (value: number) => Math.round(value * 1000) / 1000;

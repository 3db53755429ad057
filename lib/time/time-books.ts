/**
 * Books one window after another: the ticks that were acknowledged, what must have been fired, what was lost and why. It joins the
 * ledger with the monitors around it, so that the controller only decides and applies. It reads conditions from the port
 * when they matter, and changes nothing there.
 */
import type { PitConfig } from './configuration.js';
import { isPeriodic, kernelPeriodNs, maxBigint, minBigint, tickUnitsOf, UNITS_PER_NS } from './counts.js';
import { FeedbackClock, type ReadMemory } from './feedback.js';
import { Firing } from './firing.js';
import { TickLedger } from './ledger.js';
import { LossCauses } from './loss-causes.js';
import type { PitPort, TickConditions } from './pit-port.js';
import { SourceHealth } from './source-health.js';
import { StormMonitor } from './storm-monitor.js';
import { creditUnseen, creditWindow } from './window-credit.js';

export interface Window {
  readonly windowNs: bigint;
  readonly fired: bigint;
  readonly delivered: bigint;
}

/** What the controller knows of the window that it closes. */
export interface WindowContext {
  /** The kernel reinjects: more ticks than were fired may have come. */
  readonly replayed: boolean;
  readonly nominalHz: number;
  /** The ledger shall not begin, whatever comes. */
  readonly held: boolean;
  /** What each vCPU's thread had used at the window's end, which has passed. Missing: it ends now. */
  readonly vcpuCpuNs?: readonly bigint[] | undefined;
}

/** What a window brought to light. */
export interface WindowFindings {
  readonly storm: boolean;
  readonly sourceChanged: boolean;
}

/** Ticks that may be acknowledged in a window beyond those fired in it: in service, pending, and one by rounding. */
const EDGE_TICKS = 3n;
const NOTHING: WindowFindings = { storm: false, sourceChanged: false };

export class TimeBooks {
  readonly ledger: TickLedger;
  readonly firing: Firing;
  readonly health: SourceHealth;
  readonly causes = new LossCauses();
  readonly storm = new StormMonitor();
  readonly feedback: FeedbackClock | undefined;

  readonly #port: PitPort;
  #lastNs = 0n;
  #lastDelivered = 0n;
  #pausedNs = 0n;
  #frozenNs = 0n;
  #cpuNs: readonly bigint[] = [];
  /** Of the open window, up to a load in its middle. */
  #splitNs = 0n;
  #splitFired = 0n;
  #isBegun = false;
  /** Two rates fired in the last closed window. */
  #isMixed = false;
  #recent: Window = { windowNs: 0n, fired: 0n, delivered: 0n };
  #unseen = 0;
  #feedbackFault: string | undefined;

  constructor(port: PitPort, ledger: TickLedger, config: PitConfig, readMemory: ReadMemory | undefined, heard = false) {
    this.#port = port;
    this.health = new SourceHealth(heard);
    this.ledger = ledger;
    this.firing = new Firing(0, port.minPeriodNs);
    if (config.feedback && readMemory) this.feedback = new FeedbackClock(config.feedback, readMemory);
  }

  /** The last closed window. */
  get recent(): Window {
    return this.#recent;
  }

  /** The guest has taken a tick of the programmed period. Before that nothing is expected of it. */
  get isBegun(): boolean {
    return this.#isBegun;
  }

  /** The end of the last closed window, and the counter at it. */
  get closedAt(): { readonly ns: bigint; readonly delivered: bigint } {
    return { ns: this.#lastNs, delivered: this.#lastDelivered };
  }

  /** Windows in which a faster rate came and went unseen. */
  get unseen(): number {
    return this.#unseen;
  }

  /** Why the guest's own clock can't be read, if it can't: acknowledgements stand in for it. */
  get feedbackFault(): string | undefined {
    return this.#feedbackFault;
  }

  /** What is owed now, the open window included; nothing is booked. */
  owedNow(nowNs: bigint): { readonly deliveredTicks: bigint; readonly owedUnits: bigint } {
    const ticks = this.#isBegun ? this.#port.delivered() - this.#lastDelivered : 0n;
    return {
      deliveredTicks: this.ledger.deliveredTicks + ticks,
      owedUnits: this.ledger.owedUnitsAt(nowNs, ticks),
    };
  }

  /** The first window begins. `resumed`: a restored guest that had begun already. */
  open(nowNs: bigint, resumed: boolean): void {
    this.#lastNs = nowNs;
    this.#lastDelivered = this.#port.delivered();
    this.#cpuNs = this.#port.conditions(false).vcpuCpuNs;
    this.#isBegun = resumed;
  }

  /** The machine was paused for `ns`, with its clock standing still or not. */
  paused(ns: bigint, frozen: boolean): void {
    if (frozen) this.#frozenNs += ns;
    else this.#pausedNs += ns;
  }

  /** Closes a window in which a guest that is not expected to take ticks has taken none. */
  rest(nowNs: bigint): void {
    this.#lastNs = nowNs;
    this.ledger.advance(nowNs);
  }

  /** Closes a window of steady programming. */
  book(nowNs: bigint, delivered: bigint, periodic: boolean, context: WindowContext): WindowFindings {
    const window = this.#close(nowNs, delivered);
    const pausedNs = this.#takePaused();
    if (!periodic) {
      this.ledger.advance(nowNs);
      return NOTHING;
    }
    if (this.#isBegun) this.#credit(nowNs, window, context);
    else if (window.delivered > 0n && !context.held && this.health.state !== 'unavailable') {
      this.#begin(nowNs, window.delivered, window.windowNs);
    }
    return this.#judge(window, pausedNs, context);
  }

  /** Closes a window in which the guest programmed `count` and `mode` at an unknown moment. */
  reprogram(nowNs: bigint, delivered: bigint, count: number, mode: number, replayed: boolean): void {
    const before = { periodNs: this.firing.periodNs, tickUnits: this.ledger.tickUnits };
    const startNs = this.#lastNs;
    const window = this.#close(nowNs, delivered);
    this.#takePaused();
    const { ledger } = this;
    const minPeriodNs = this.#port.minPeriodNs;
    const ticks = window.delivered;
    const elapsedNs = window.windowNs;
    if (!isPeriodic(count, mode)) {
      if (this.#isBegun) {
        // The period was given up at an unknown moment: as if no tick had been lost before it.
        const firedNs = ticks * before.periodNs;
        ledger.advance(startNs + (firedNs < elapsedNs ? firedNs : elapsedNs));
        const left = firedNs < elapsedNs ? elapsedNs - firedNs : 0n;
        const credit = creditWindow({ ticks, elapsedNs, before, after: before, replayed });
        this.#deliver(ticks, credit.units, elapsedNs);
        ledger.addUncertainty(credit.uncertainUnits + left * UNITS_PER_NS);
      }
      ledger.reprogram(startNs, count, mode);
      ledger.advance(nowNs);
      this.#isBegun = false;
    } else if (this.#isBegun) {
      ledger.advance(nowNs);
      const after = { periodNs: kernelPeriodNs(count, minPeriodNs), tickUnits: tickUnitsOf(count, minPeriodNs) };
      const credit = creditWindow({ ticks, elapsedNs, before, after, replayed });
      this.#deliver(ticks, credit.units, elapsedNs);
      ledger.addUncertainty(credit.uncertainUnits);
      ledger.reprogram(nowNs, count, mode);
    } else {
      ledger.reprogram(nowNs, count, mode);
      ledger.standDown(nowNs);
      if (ticks > 0n) this.#begin(nowNs, ticks, elapsedNs);
    }
    this.firing.load(count, false);
    this.causes.restart();
    this.health.restart();
    this.storm.forgetWindow();
  }

  /** Native code loaded `count` at `atNs`, in the window that is still open. */
  expire(atNs: bigint, count: number): void {
    const elapsedNs = atNs > this.#lastNs + this.#splitNs ? atNs - this.#lastNs - this.#splitNs : 0n;
    this.#splitFired += this.firing.advance(elapsedNs);
    this.#splitNs += elapsedNs;
    this.firing.load(count, true);
  }

  /** The host loaded `count` at the end of the last window. */
  load(count: number): void {
    this.firing.load(count, true);
    this.causes.restart();
  }

  /** The ledger counts no more until ticks begin anew. */
  standDown(nowNs: bigint): void {
    this.ledger.standDown(nowNs);
    this.#isBegun = false;
    this.causes.restart();
    this.storm.endEpisode();
  }

  /** Starts the ledger at the first ticks of a programming, in balance. */
  #begin(nowNs: bigint, ticks: bigint, windowNs: bigint): void {
    const { ledger } = this;
    ledger.reprogram(nowNs, ledger.count, ledger.mode);
    const rate = {
      periodNs: kernelPeriodNs(ledger.count, this.#port.minPeriodNs),
      tickUnits: ledger.tickUnits,
    };
    // What came before may have been faster, or single ticks. It is in balance all the same.
    const credit = creditUnseen(ticks, windowNs, rate);
    ledger.begin(ticks, credit.units);
    ledger.addUncertainty(credit.uncertainUnits);
    this.feedback?.restart();
    this.#feedbackUnits(0n);
    this.#isBegun = true;
  }

  #close(nowNs: bigint, delivered: bigint): Window {
    const passedNs = nowNs > this.#lastNs ? nowNs - this.#lastNs : 0n;
    const frozenNs = minBigint(this.#frozenNs, passedNs);
    const firedTicks = this.#splitFired + this.firing.advance(passedNs > this.#splitNs ? passedNs - this.#splitNs : 0n);
    // The kernel's timer goes on while the machine's clock stands still; what it fires then is nobody's loss.
    const fired = maxBigint(0n, firedTicks - frozenNs / this.firing.periodNs);
    this.#isMixed = this.#splitNs > 0n;
    this.#splitFired = 0n;
    this.#splitNs = 0n;
    this.#frozenNs = 0n;
    this.#recent = { windowNs: passedNs - frozenNs, fired, delivered: delivered - this.#lastDelivered };
    this.#lastNs += passedNs;
    this.#lastDelivered = delivered;
    return this.#recent;
  }

  #takePaused(): bigint {
    const pausedNs = this.#pausedNs;
    this.#pausedNs = 0n;
    return pausedNs;
  }

  #credit(nowNs: bigint, window: Window, { replayed }: WindowContext): void {
    this.ledger.advance(nowNs);
    const ticks = window.delivered;
    if (replayed || ticks <= window.fired + EDGE_TICKS) {
      this.#deliver(ticks, ticks * this.ledger.tickUnits, window.windowNs);
      return;
    }
    this.#unseen++;
    const rate = { periodNs: this.firing.periodNs, tickUnits: this.ledger.tickUnits };
    const credit = creditUnseen(ticks, window.windowNs, rate);
    this.#deliver(ticks, credit.units, window.windowNs);
    this.ledger.addUncertainty(credit.uncertainUnits);
  }

  /** Books ticks with what the guest's own clock says, where it can be read. */
  #deliver(ticks: bigint, units: bigint, elapsedNs: bigint): void {
    this.ledger.deliverAs(ticks, this.#feedbackUnits(elapsedNs) ?? units);
  }

  #feedbackUnits(elapsedNs: bigint): bigint | undefined {
    if (!this.feedback || this.#feedbackFault !== undefined) return undefined;
    try {
      const step = this.feedback.look(elapsedNs, this.ledger.tickUnits);
      return step.jumped ? undefined : step.units;
    } catch (error) {
      this.#feedbackFault = error instanceof Error ? error.message : String(error);
      return undefined;
    }
  }

  #judge(window: Window, pausedNs: bigint, { replayed, nominalHz, vcpuCpuNs }: WindowContext): WindowFindings {
    const before = this.#cpuNs;
    let conditions: TickConditions = vcpuCpuNs ? { masked: undefined, vcpuCpuNs } : this.#port.conditions(false);
    this.#cpuNs = conditions.vcpuCpuNs;
    let looked = false;
    const look = (): TickConditions => {
      if (!looked) conditions = { ...conditions, ...this.#port.conditions(true), vcpuCpuNs: conditions.vcpuCpuNs };
      looked = true;
      return conditions;
    };
    const ranNs = window.windowNs > pausedNs ? window.windowNs - pausedNs : 0n;
    /** Of the CPU that Linux sends IRQ 0 to: the time in which it used none of the host's. */
    const unusedNs = (): bigint => {
      const used = (conditions.vcpuCpuNs[0] ?? 0n) - (before[0] ?? 0n);
      return used >= ranNs ? 0n : ranNs - used;
    };
    /** One that halts wants no more than it used. */
    const starvedNs = (): bigint => (conditions.halted?.[0] === true ? 0n : unusedNs());
    const hasRun = () => conditions.vcpuCpuNs.some((cpuNs, index) => (cpuNs - (before[index] ?? 0n)) * 20n > ranNs);

    const sourceChanged = this.health.observe(
      { windowNs: ranNs, fired: ranNs / this.firing.periodNs, delivered: window.delivered },
      () => look().masked === false && hasRun(),
    );
    if (!this.#isBegun || replayed) return { storm: false, sourceChanged };
    this.causes.observe(
      {
        ...window,
        pausedNs,
        firingPeriodNs: this.firing.periodNs,
        tickNs: this.ledger.tickUnits / UNITS_PER_NS,
      },
      () => ({ masked: look().masked, starvedNs: starvedNs() }),
    );
    if (this.#isMixed) return { storm: false, sourceChanged };
    const takesAll = window.delivered * 20n >= window.fired * 19n;
    const misses = !takesAll && look().masked !== true;
    // Who is swamped is never idle: what a guest does not take while it halts was lost by the host's late firing.
    const isIdle = pausedNs === 0n && misses && conditions.halted?.[0] === true && unusedNs() * 4n >= ranNs;
    const starved = takesAll ? 0n : starvedNs();
    const ableToTake = pausedNs === 0n && (takesAll || (misses && !isIdle && starved * 2n < ranNs));
    // What was fired while the vCPU had no CPU says nothing about what it can take: that time is left out.
    const sample = {
      windowNs: window.windowNs - starved,
      fired: maxBigint(window.delivered, window.fired - starved / this.firing.periodNs),
      delivered: window.delivered,
    };
    const storm = this.storm.observe({ ...sample, ableToTake, isIdle, nominalHz, firingHz: this.firing.hz });
    return { storm, sourceChanged };
  }
}

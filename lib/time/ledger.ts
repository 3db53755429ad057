/**
 * The tick ledger: owed = expected - delivered - forgiven, exact, across pauses, reprogramming and snapshots. The three
 * come from different sources: `expected` from the clock alone, `delivered` from acknowledgements (or the guest's own
 * clock), `forgiven` from decisions. It only keeps books: it reads no clock and no PIT and decides nothing.
 *
 *              standDown()                      freeze()
 *   counting <------------> standing down     at any time: the clock does not count until unfreeze()
 *              reprogram()
 *
 * Implements rows T2, T3 and T7 (US8533709B2). Unit: see counts.ts. Expected time is virtual time: the clock's, times timeScale.
 */
import { floorDiv, isPeriodic, tickUnitsOf, UNITS_PER_NS } from './counts.js';

/** The factor between the clock and virtual time, exact: numerator / denominator, both positive. */
export interface TimeScale {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

export const REAL_TIME: TimeScale = { numerator: 1n, denominator: 1n };

export interface LedgerOptions {
  readonly nowNs: bigint;
  /** The kernel's shortest period: ticks of shorter ones are expected at this period, since nobody can fire them. */
  readonly minPeriodNs: bigint;
}

/** A ledger as JSON. Bigints are decimal text. It holds no point in time, so it can move to another host. */
export interface LedgerState {
  readonly version: 1;
  readonly expectedUnits: string;
  readonly expectedCarry: string;
  readonly deliveredUnits: string;
  readonly deliveredTicks: string;
  readonly forgivenUnits: string;
  readonly forgivenTicks: string;
  readonly uncertainUnits: string;
  readonly timeScale: readonly [string, string];
  /** The programming last in force: [count, mode]. */
  readonly programmed: readonly [number, number];
  /** A tick of the last periodic programming. */
  readonly tickUnits: string;
  readonly counting: boolean;
}

export class TickLedger {
  readonly #minPeriodNs: bigint;
  #lastNs: bigint;
  #frozen = false;
  #counting = false;
  #count = 0;
  #mode = 0;
  #tickUnits = 0n;
  #scale = REAL_TIME;
  #expected = 0n;
  /** What the division by the scale's denominator has left over. */
  #carry = 0n;
  #delivered = 0n;
  #deliveredTicks = 0n;
  #forgiven = 0n;
  #forgivenTicks = 0n;
  #uncertain = 0n;

  constructor(options: LedgerOptions) {
    this.#lastNs = options.nowNs;
    this.#minPeriodNs = options.minPeriodNs;
  }

  /** Counts expected time up to `nowNs`. A moment before the last one changes nothing. */
  advance(nowNs: bigint): void {
    if (nowNs <= this.#lastNs) return;
    const elapsedNs = nowNs - this.#lastNs;
    this.#lastNs = nowNs;
    if (this.#counting && !this.#frozen) this.#expect(elapsedNs);
  }

  /** Books acknowledged ticks of the programmed period. @throws RangeError for a negative number, or without a period. */
  deliver(ticks: bigint): void {
    this.deliverAs(ticks, ticks * this.#tickUnits);
  }

  /** Books ticks whose worth in units is known better than from their number: see window-credit.ts and feedback.ts. */
  deliverAs(ticks: bigint, units: bigint): void {
    if (ticks < 0n) throw new RangeError(`ticks: ${ticks} is negative`);
    if (ticks > 0n && this.#tickUnits === 0n) throw new RangeError('no period was ever programmed');
    this.#deliveredTicks += ticks;
    this.#delivered += units;
  }

  /**
   * Expects and books ticks at once: the first of a programming, before which nothing was owed. The last of them came
   * somewhere in the period that ends now; the middle is taken, so what is owed starts wrong by half a period at most.
   */
  begin(ticks: bigint, units: bigint): void {
    this.#expected += units + this.#tickUnits / 2n;
    this.deliverAs(ticks, units);
  }

  /**
   * The guest loaded `count` (1 to 65536) in `mode`. What is owed stays as it is in units, so it is rescaled in ticks
   * and its remainder kept; the old period's elapsed fraction has been counted. One-shot modes stand the ledger down.
   */
  reprogram(nowNs: bigint, count: number, mode: number): void {
    this.advance(nowNs);
    this.#count = count;
    this.#mode = mode;
    this.#counting = isPeriodic(count, mode);
    if (this.#counting) this.#tickUnits = tickUnitsOf(count, this.#minPeriodNs);
  }

  /** Nothing is expected from now on; what is owed stays. */
  standDown(nowNs: bigint): void {
    this.advance(nowNs);
    this.#counting = false;
  }

  /** The machine's clock stands still: no time is expected until unfreeze(). */
  freeze(nowNs: bigint): void {
    this.advance(nowNs);
    this.#frozen = true;
  }

  unfreeze(nowNs: bigint): void {
    this.advance(nowNs);
    this.#frozen = false;
  }

  /** Gives up whole ticks of the programmed period. @throws RangeError for a negative number. */
  forgive(ticks: bigint): void {
    if (ticks < 0n) throw new RangeError(`ticks: ${ticks} is negative`);
    this.#forgivenTicks += ticks;
    this.#forgiven += ticks * this.#tickUnits;
  }

  /** Adds time of the host that the clock has not shown: the gap between a snapshot and its restore (row S10). */
  owe(ns: bigint): void {
    if (ns < 0n) throw new RangeError(`ns: ${ns} is negative`);
    this.#expect(ns);
  }

  setTimeScale(nowNs: bigint, scale: TimeScale): void {
    this.advance(nowNs);
    if (scale.numerator <= 0n || scale.denominator <= 0n) throw new RangeError('timeScale: not positive');
    // The remainder, less than one unit (under 10^-15 s), goes on as the same numerator over the new denominator.
    this.#carry = (this.#carry * scale.denominator) / this.#scale.denominator;
    this.#scale = scale;
  }

  /** Widens the stated bound on |delivered - what the guest counted|: see window-credit.ts. */
  addUncertainty(units: bigint): void {
    this.#uncertain += units;
  }

  get counting(): boolean {
    return this.#counting;
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  /** The programmed count, 0 before the first. */
  get count(): number {
    return this.#count;
  }

  get mode(): number {
    return this.#mode;
  }

  /** A tick of the programmed period in units; 0n before the first. */
  get tickUnits(): bigint {
    return this.#tickUnits;
  }

  get timeScale(): TimeScale {
    return this.#scale;
  }

  get expectedUnits(): bigint {
    return this.#expected;
  }

  get deliveredUnits(): bigint {
    return this.#delivered;
  }

  get forgivenUnits(): bigint {
    return this.#forgiven;
  }

  get uncertainUnits(): bigint {
    return this.#uncertain;
  }

  get owedUnits(): bigint {
    return this.#expected - this.#delivered - this.#forgiven;
  }

  /** What would be owed at `nowNs` with `ticks` more delivered. Books nothing. */
  owedUnitsAt(nowNs: bigint, ticks: bigint): bigint {
    const counts = this.#counting && !this.#frozen && nowNs > this.#lastNs;
    const { units } = counts ? this.#scaled(nowNs - this.#lastNs) : { units: 0n };
    return this.owedUnits + units - ticks * this.#tickUnits;
  }

  /** Whole ticks of the programmed period, rounded down: -1 means that the guest is ahead by up to one tick. */
  get owedTicks(): bigint {
    return this.#tickUnits === 0n ? 0n : floorDiv(this.owedUnits, this.#tickUnits);
  }

  /** What owedTicks leaves over: at least 0, less than a tick. */
  get owedRemainderUnits(): bigint {
    return this.owedUnits - this.owedTicks * this.#tickUnits;
  }

  /** Virtual nanoseconds, rounded down. */
  get owedNs(): bigint {
    return floorDiv(this.owedUnits, UNITS_PER_NS);
  }

  /** Acknowledged ticks as they were counted, whatever their period was. */
  get deliveredTicks(): bigint {
    return this.#deliveredTicks;
  }

  /** Forgiven ticks as they were counted. */
  get forgivenTicks(): bigint {
    return this.#forgivenTicks;
  }

  /** Taken or forgiven ticks as counted, and the owed ones in ticks of the programmed period. */
  get expectedTicks(): bigint {
    return this.#deliveredTicks + this.#forgivenTicks + this.owedTicks;
  }

  state(): LedgerState {
    return {
      version: 1,
      expectedUnits: String(this.#expected),
      expectedCarry: String(this.#carry),
      deliveredUnits: String(this.#delivered),
      deliveredTicks: String(this.#deliveredTicks),
      forgivenUnits: String(this.#forgiven),
      forgivenTicks: String(this.#forgivenTicks),
      uncertainUnits: String(this.#uncertain),
      timeScale: [String(this.#scale.numerator), String(this.#scale.denominator)],
      programmed: [this.#count, this.#mode],
      tickUnits: String(this.#tickUnits),
      counting: this.#counting,
    };
  }

  /**
   * A ledger that goes on from `state` at `options.nowNs`, on a clock that need not be the one it was saved on.
   *
   * @throws RangeError for a version that is not known, TypeError for a state that is none.
   */
  static fromState(state: LedgerState, options: LedgerOptions): TickLedger {
    if (typeof state !== 'object' || state === null) throw new TypeError('ledger state: an object is wanted');
    const version: unknown = state.version;
    if (version !== 1) throw new RangeError(`ledger state: version ${JSON.stringify(version)} is not known, only 1`);
    const ledger = new TickLedger(options);
    const [numerator, denominator] = state.timeScale;
    ledger.setTimeScale(options.nowNs, {
      numerator: whole('timeScale', numerator),
      denominator: whole('timeScale', denominator),
    });
    const [count, mode] = state.programmed;
    ledger.#tickUnits = whole('tickUnits', state.tickUnits);
    ledger.reprogram(options.nowNs, count, mode);
    ledger.#counting = ledger.#counting && state.counting;
    ledger.#expected = whole('expectedUnits', state.expectedUnits);
    ledger.#carry = whole('expectedCarry', state.expectedCarry);
    ledger.#delivered = whole('deliveredUnits', state.deliveredUnits);
    ledger.#deliveredTicks = whole('deliveredTicks', state.deliveredTicks);
    ledger.#forgiven = whole('forgivenUnits', state.forgivenUnits);
    ledger.#forgivenTicks = whole('forgivenTicks', state.forgivenTicks);
    ledger.#uncertain = whole('uncertainUnits', state.uncertainUnits);
    return ledger;
  }

  #expect(ns: bigint): void {
    const { units, carry } = this.#scaled(ns);
    this.#expected += units;
    this.#carry = carry;
  }

  #scaled(ns: bigint): { units: bigint; carry: bigint } {
    const scaled = ns * UNITS_PER_NS * this.#scale.numerator + this.#carry;
    return { units: scaled / this.#scale.denominator, carry: scaled % this.#scale.denominator };
  }
}

function whole(name: string, text: unknown): bigint {
  if (typeof text !== 'string' || !/^-?\d+$/.test(text)) {
    throw new TypeError(`ledger state: ${name} is no whole number in decimal text`);
  }
  return BigInt(text);
}

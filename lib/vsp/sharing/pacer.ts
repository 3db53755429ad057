/**
 * The rate limit of one guest at one device: operations and bytes a second, each a bucket that fills up to its burst. A request is let
 * through when neither bucket is in debt, and then takes what it costs, so that one larger than the burst passes too and is paid
 * for afterwards. In order; time by an injected clock; nothing runs while nobody waits.
 */
import type { Clock, Timer } from '../../base/clock.js';
import { checkOptionNames } from '../../base/options.js';

export interface TrafficLimits {
  readonly operationsPerSecond?: number | undefined;
  /** Operations at once after a rest. Default: a tenth of a second's, at least 1. */
  readonly operationsBurst?: number | undefined;
  readonly bytesPerSecond?: number | undefined;
  /** Default: a tenth of a second's, at least 64 KiB. */
  readonly bytesBurst?: number | undefined;
}

const NAMES = ['operationsPerSecond', 'operationsBurst', 'bytesPerSecond', 'bytesBurst'] as const;
const DEFAULT_BURST_SECONDS = 0.1;
const LEAST_BURST_BYTES = 65536;
/** Of rates and bursts: one in a quarter of an hour, and more than any device has. */
const LEAST = 1e-3;
const GREATEST = 1e15;
const NS_PER_SECOND = 1e9;

/** @throws TypeError for misspelled names and what is no number, RangeError for a rate or a burst that is out of bounds. */
export function checkTrafficLimits(name: string, limits: TrafficLimits): void {
  if (typeof limits !== 'object' || limits === null) throw new TypeError(`${name}: an object is wanted`);
  checkOptionNames(name, limits, [...NAMES]);
  for (const key of NAMES) {
    const value: unknown = limits[key];
    if (value === undefined) continue;
    if (typeof value !== 'number') throw new TypeError(`${name}.${key}: a number is wanted`);
    if (!(value >= LEAST && value <= GREATEST)) {
      throw new RangeError(`${name}.${key}: ${value} is not from ${LEAST} to ${GREATEST}`);
    }
  }
  for (const kind of ['operations', 'bytes'] as const) {
    if (limits[`${kind}Burst`] !== undefined && limits[`${kind}PerSecond`] === undefined) {
      throw new RangeError(`${name}.${kind}Burst: ${kind}PerSecond is wanted with it`);
    }
  }
}

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
}

export class Pacer {
  readonly #clock: Clock;
  readonly #buckets: { readonly ofBytes: boolean; readonly bucket: Bucket }[] = [];
  #line: Waiting[] = [];
  #timer: Timer | undefined;
  #isStarting = false;

  /** `limits` have been checked. */
  constructor(clock: Clock, limits: TrafficLimits) {
    this.#clock = clock;
    const { operationsPerSecond, bytesPerSecond } = limits;
    const nowNs = clock.nowNs();
    if (operationsPerSecond !== undefined) {
      const burst = limits.operationsBurst ?? Math.max(1, operationsPerSecond * DEFAULT_BURST_SECONDS);
      this.#buckets.push({ ofBytes: false, bucket: new Bucket(operationsPerSecond, burst, nowNs) });
    }
    if (bytesPerSecond !== undefined) {
      const burst = limits.bytesBurst ?? Math.max(LEAST_BURST_BYTES, bytesPerSecond * DEFAULT_BURST_SECONDS);
      this.#buckets.push({ ofBytes: true, bucket: new Bucket(bytesPerSecond, burst, nowNs) });
    }
  }

  get waiting(): number {
    return this.#line.length;
  }

  /** Lets through at once whoever waits, who is owed for as any other: those that come later wait the longer. */
  hurry(): void {
    const nowNs = this.#clock.nowNs();
    for (const { bucket } of this.#buckets) bucket.untilFreeNs(nowNs);
    for (const waiting of this.#line.splice(0)) this.#start(waiting);
  }

  /** Calls `start` when the limits allow it, possibly now. */
  submit(bytes: number, start: () => void): void {
    if (this.#buckets.length === 0) {
      start();
      return;
    }
    this.#line.push({ bytes, start });
    if (this.#timer === undefined && !this.#isStarting) this.#serve();
  }

  #serve(): void {
    this.#timer = undefined;
    this.#isStarting = true;
    let waitNs = 0;
    while (this.#line.length > 0) {
      const nowNs = this.#clock.nowNs();
      waitNs = Math.max(...this.#buckets.map(({ bucket }) => bucket.untilFreeNs(nowNs)));
      if (waitNs > 0) break;
      this.#start(this.#line.shift()!);
    }
    this.#isStarting = false;
    if (this.#line.length > 0) this.#timer = this.#clock.setTimer(BigInt(Math.ceil(waitNs)), () => this.#serve());
  }

  #start({ bytes, start }: Waiting): void {
    for (const { ofBytes, bucket } of this.#buckets) bucket.take(ofBytes ? bytes : 1);
    start();
  }
}

class Bucket {
  readonly #perNs: number;
  readonly #burst: number;
  /** Below 0: in debt. */
  #level: number;
  #filledNs: bigint;

  constructor(perSecond: number, burst: number, nowNs: bigint) {
    this.#perNs = perSecond / NS_PER_SECOND;
    this.#burst = burst;
    this.#level = burst;
    this.#filledNs = nowNs;
  }

  /** 0 when something can be taken now. */
  untilFreeNs(nowNs: bigint): number {
    this.#level = Math.min(this.#burst, this.#level + Number(nowNs - this.#filledNs) * this.#perNs);
    this.#filledNs = nowNs;
    return this.#level > 0 ? 0 : Math.max(1, -this.#level / this.#perNs);
  }

  take(amount: number): void {
    this.#level -= amount;
  }
}

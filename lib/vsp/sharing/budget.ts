/**
 * What one guest may have of one device over time: operations and bytes a second, each a bucket that fills up to its burst. Something
 * is let through when no bucket is in debt, and then takes what it costs, so that one larger than the burst passes too and is paid
 * for afterwards. It keeps no clock and no timer: whoever waits does (pacer.ts, net/frame-line.ts).
 */
import { checkOptionNames } from '../../base/options.js';

export interface TrafficLimits {
  readonly operationsPerSecond?: number | undefined;
  /** Operations at once after a rest. Default: a tenth of a second's, at least 1. */
  readonly operationsBurst?: number | undefined;
  readonly bytesPerSecond?: number | undefined;
  /** Default: a tenth of a second's, at least 64 KiB. */
  readonly bytesBurst?: number | undefined;
}

/** Of a network: what a guest may send, and what it may be given. */
export interface DirectionLimits {
  readonly send?: TrafficLimits | undefined;
  readonly receive?: TrafficLimits | undefined;
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

/**
 * Limits of a network: of each direction, or one for both, of which each has the whole.
 *
 * @throws TypeError, RangeError as {@link checkTrafficLimits}.
 */
export function checkDirectionLimits(name: string, limits: TrafficLimits | DirectionLimits): DirectionLimits {
  if (typeof limits !== 'object' || limits === null) throw new TypeError(`${name}: an object is wanted`);
  checkOptionNames(name, limits, ['send', 'receive', ...NAMES]);
  if (!isOfDirections(limits)) {
    checkTrafficLimits(name, limits);
    return { send: limits, receive: limits };
  }
  checkOptionNames(`${name}: with send or receive`, limits, ['send', 'receive']);
  const { send, receive } = limits;
  if (send !== undefined) checkTrafficLimits(`${name}.send`, send);
  if (receive !== undefined) checkTrafficLimits(`${name}.receive`, receive);
  return { send, receive };
}

function isOfDirections(limits: TrafficLimits | DirectionLimits): limits is DirectionLimits {
  return 'send' in limits || 'receive' in limits;
}

/** The buckets of some limits. */
export class Budget {
  readonly #operations: Bucket | undefined;
  readonly #bytes: Bucket | undefined;

  /** `limits` have been checked. */
  constructor(limits: TrafficLimits, nowNs: bigint) {
    const { operationsPerSecond, bytesPerSecond } = limits;
    if (operationsPerSecond !== undefined) {
      const burst = limits.operationsBurst ?? Math.max(1, operationsPerSecond * DEFAULT_BURST_SECONDS);
      this.#operations = new Bucket(operationsPerSecond, burst, nowNs);
    }
    if (bytesPerSecond !== undefined) {
      const burst = limits.bytesBurst ?? Math.max(LEAST_BURST_BYTES, bytesPerSecond * DEFAULT_BURST_SECONDS);
      this.#bytes = new Bucket(bytesPerSecond, burst, nowNs);
    }
  }

  /** Nothing ever waits for it. */
  get isUnlimited(): boolean {
    return this.#operations === undefined && this.#bytes === undefined;
  }

  /** How long until the next one is let through, in ns; 0 for now. */
  untilFreeNs(nowNs: bigint): number {
    return Math.max(this.#operations?.untilFreeNs(nowNs) ?? 0, this.#bytes?.untilFreeNs(nowNs) ?? 0);
  }

  /** One operation of so many bytes. */
  take(bytes: number): void {
    this.#operations?.take(1);
    this.#bytes?.take(bytes);
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

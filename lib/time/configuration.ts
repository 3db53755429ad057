/**
 * The `pit` options as a user writes them, checked, and the bounds that follow from them once the guest has programmed a
 * rate. What is impossible by itself is refused here with a TypeError or a RangeError; what is impossible only for one
 * programmed rate (a cap below it) is clamped then, and the bounds say so.
 */
import { checkInteger, checkOptionNames } from '../base/options.js';
import { kernelPeriodNs, MAX_HOST_COUNT, PIT_HZ } from './counts.js';
import type { TimeScale } from './ledger.js';
import { PROFILE_NAMES, profileFor, type PitProfile, type ProfileName } from './profiles.js';
import type { PitPolicy } from './policy.js';

export type PolicyName = 'catch-up' | 'reinject' | 'discard';

/** A counter in guest memory by which the guest tells its time, such as the BIOS tick count (row T5). */
export interface FeedbackOptions {
  /** Guest physical address; the BIOS counts at 0x46c. */
  readonly gpa: number;
  readonly widthBytes: 1 | 2 | 4 | 8;
  /** Counts a second; 'programmed': one count for each tick of the rate that the guest programs. */
  readonly rateHz: number | 'programmed';
  /** The counter goes back to 0 here instead of at its width; the BIOS's at 0x1800b0, a day. */
  readonly wrapsAt?: number;
}

export interface PitOptions {
  /** Default 'catch-up'. */
  readonly policy?: PolicyName | PitPolicy;
  /** Lag at which catching up begins. Default: the longer of 5 ms and 2 periods. */
  readonly enterMs?: number;
  /** Lag at which it may end, and lead that is left alone. Default: 1 period. */
  readonly toleranceMs?: number;
  /** Interrupts a second at most. Default: 4 times nominal, and no more than 5000. */
  readonly maxRateHz?: number;
  /** Lag that is given up and reported. Default 60000. */
  readonly giveUpMs?: number;
  /** Kind of guest. Default 'auto': by the rate that it programs. */
  readonly profile?: ProfileName | 'auto';
  readonly feedback?: FeedbackOptions;
  /** Virtual time against the host's, 0.1 to 10. Default 1. */
  readonly timeScale?: number;
}

export interface PitConfig {
  readonly policy: PolicyName | PitPolicy;
  readonly enterNs: bigint | undefined;
  readonly toleranceNs: bigint | undefined;
  readonly maxRateHz: number | undefined;
  readonly giveUpNs: bigint;
  readonly profile: ProfileName | 'auto';
  readonly feedback: FeedbackOptions | undefined;
  readonly timeScale: TimeScale;
}

/** What holds for one programmed rate. Times are the host's. */
export interface PitBounds {
  readonly profile: PitProfile;
  readonly enterNs: bigint;
  readonly toleranceNs: bigint;
  readonly giveUpNs: bigint;
  readonly maxRateHz: number;
  /** The configured cap is below the nominal rate, so it was raised to it and nothing can be caught up. */
  readonly capIsClamped: boolean;
}

const NAMES = ['policy', 'enterMs', 'toleranceMs', 'maxRateHz', 'giveUpMs', 'profile', 'feedback', 'timeScale'];
const POLICIES: readonly PolicyName[] = ['catch-up', 'reinject', 'discard'];
const MIN_SCALE = 0.1;
const MAX_SCALE = 10;
const SCALE_DENOMINATOR = 1_000_000;
const DAY_MS = 86_400_000;

/** @throws TypeError for wrong names and types, RangeError for what is impossible. */
export function checkPitOptions(options: PitOptions = {}): PitConfig {
  if (typeof options !== 'object' || options === null) throw new TypeError('pit: an options object is wanted');
  checkOptionNames('pit', options, NAMES);
  const policy = checkPolicy(options.policy ?? 'catch-up');
  const enterNs = optionalMs('pit.enterMs', options.enterMs);
  const toleranceNs = optionalMs('pit.toleranceMs', options.toleranceMs);
  const giveUpNs = optionalMs('pit.giveUpMs', options.giveUpMs) ?? 60_000_000_000n;
  if (enterNs !== undefined && toleranceNs !== undefined && toleranceNs > enterNs) {
    throw new RangeError(
      `pit.toleranceMs: ${Number(toleranceNs) / 1e6} is above enterMs, ${Number(enterNs) / 1e6}: ` +
        'catching up would end before it begins',
    );
  }
  for (const [name, value] of [['enterMs', enterNs] as const, ['toleranceMs', toleranceNs] as const]) {
    if (value !== undefined && giveUpNs <= value) {
      throw new RangeError(`pit.giveUpMs: ${Number(giveUpNs) / 1e6} is not above ${name}, ${Number(value) / 1e6}`);
    }
  }
  if (options.maxRateHz !== undefined) checkNumber('pit.maxRateHz', options.maxRateHz, 1, PIT_HZ);
  const profile = options.profile ?? 'auto';
  if (profile !== 'auto' && !PROFILE_NAMES.includes(profile)) {
    throw new TypeError(`pit.profile: ${JSON.stringify(profile)} is none of 'auto', ${list(PROFILE_NAMES)}`);
  }
  if (options.feedback !== undefined) checkFeedback(options.feedback);
  return {
    policy,
    enterNs,
    toleranceNs,
    maxRateHz: options.maxRateHz,
    giveUpNs,
    profile,
    feedback: options.feedback,
    timeScale: toTimeScale(options.timeScale ?? 1),
  };
}

/** @throws TypeError when it is neither a policy's name nor a function. */
export function checkPolicy(policy: unknown): PolicyName | PitPolicy {
  if (typeof policy === 'function') return policy as PitPolicy;
  if (POLICIES.includes(policy as PolicyName)) return policy as PolicyName;
  throw new TypeError(`pit.policy: ${JSON.stringify(policy)} is neither a function nor one of ${list(POLICIES)}`);
}

/**
 * A factor as an exact fraction of millionths.
 *
 * @throws TypeError when it is no number, RangeError outside 0.1 to 10.
 */
export function toTimeScale(factor: number): TimeScale {
  checkNumber('pit.timeScale', factor, MIN_SCALE, MAX_SCALE);
  return { numerator: BigInt(Math.round(factor * SCALE_DENOMINATOR)), denominator: BigInt(SCALE_DENOMINATOR) };
}

/** The factors at which a programmed count can be fired: the kernel bounds its period below, the largest count above. */
export function timeScaleBounds(count: number, minPeriodNs: bigint): { readonly min: number; readonly max: number } {
  if (count === 0) return { min: MIN_SCALE, max: MAX_SCALE };
  const periodNs = Number(kernelPeriodNs(count, minPeriodNs));
  return {
    min: Math.max(MIN_SCALE, Math.min(1, count / MAX_HOST_COUNT)),
    max: Math.min(MAX_SCALE, Math.max(1, periodNs / Number(minPeriodNs))),
  };
}

/**
 * The bounds for a guest whose nominal rate takes `periodNs` of the host's time; `programmedHz` undefined: no rate. A
 * tolerance above the enter threshold, which only defaults can make, raises that threshold.
 */
export function boundsFor(config: PitConfig, programmedHz: number | undefined, periodNs: bigint): PitBounds {
  const profile = profileFor(config.profile, programmedHz);
  const toleranceNs = config.toleranceNs ?? smaller(periodNs, config.enterNs ?? periodNs);
  const entering = config.enterNs ?? larger(profile.enterNs, 2n * periodNs);
  const nominalHz = 1e9 / Number(periodNs);
  const wantedHz = config.maxRateHz ?? Math.min(profile.maxSpeed * nominalHz, profile.maxRateHz);
  return {
    profile,
    enterNs: larger(entering, toleranceNs),
    toleranceNs,
    giveUpNs: config.giveUpNs,
    maxRateHz: Math.max(nominalHz, Math.min(wantedHz, profile.maxSpeed === 1 ? nominalHz : wantedHz)),
    capIsClamped: wantedHz < nominalHz,
  };
}

function checkFeedback(feedback: FeedbackOptions): void {
  if (typeof feedback !== 'object' || feedback === null) throw new TypeError('pit.feedback: an object is wanted');
  checkOptionNames('pit.feedback', feedback, ['gpa', 'widthBytes', 'rateHz', 'wrapsAt']);
  const { gpa, widthBytes, rateHz, wrapsAt } = feedback;
  checkInteger('pit.feedback.gpa', gpa, 0, 2 ** 52 - 8);
  if (![1, 2, 4, 8].includes(widthBytes)) {
    throw new RangeError(`pit.feedback.widthBytes: ${String(widthBytes)} is none of 1, 2, 4, 8`);
  }
  if (rateHz !== 'programmed') checkNumber('pit.feedback.rateHz', rateHz, 0.01, 1e10);
  if (wrapsAt !== undefined) {
    checkInteger('pit.feedback.wrapsAt', wrapsAt, 2, Math.min(2 ** (8 * widthBytes), Number.MAX_SAFE_INTEGER));
  }
}

function optionalMs(name: string, value: number | undefined): bigint | undefined {
  if (value === undefined) return undefined;
  checkNumber(name, value, 0, DAY_MS);
  return BigInt(Math.round(value * 1e6));
}

function checkNumber(name: string, value: unknown, minimum: number, maximum: number): void {
  if (typeof value !== 'number' || Number.isNaN(value)) throw new TypeError(`${name}: a number is wanted`);
  if (value < minimum || value > maximum)
    throw new RangeError(`${name}: ${value} is not from ${minimum} to ${maximum}`);
}

const list = (names: readonly string[]) => names.map((name) => `'${name}'`).join(', ');
const smaller = (a: bigint, b: bigint) => (a < b ? a : b);
const larger = (a: bigint, b: bigint) => (a > b ? a : b);

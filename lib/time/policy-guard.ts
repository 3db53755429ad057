/**
 * Stands between the controller and a policy. An answer is used only if it can be: known phase, a count within bounds, no more
 * forgiven than owed, an expiry on every rate but nominal. A policy that throws or answers nonsense is put aside for
 * the kernel's reinjection until another is set; the fault is a value for the controller to report, never an exception.
 */
import { checkPolicy, type PolicyName } from './configuration.js';
import { catchUpPolicy } from './catch-up-policy.js';
import { countAtLeast, kernelPeriodNs } from './counts.js';
import type { PitPolicy, PolicyInput, PolicyPhase } from './policy.js';
import { discardPolicy, reinjectPolicy } from './simple-policies.js';

/** A decision that was checked and completed. */
export interface CheckedDecision {
  readonly phase: PolicyPhase;
  readonly count: number;
  readonly reinject: boolean;
  readonly forgiveTicks: bigint;
  readonly gaveUp: boolean;
  readonly expiryNs: bigint | undefined;
}

const BUILT_IN: Readonly<Record<PolicyName, PitPolicy>> = {
  'catch-up': catchUpPolicy,
  reinject: reinjectPolicy,
  discard: discardPolicy,
};
const PHASES: readonly unknown[] = ['nominal', 'catch-up', 'slow-down'] satisfies PolicyPhase[];

export class PolicyGuard {
  #name: PolicyName | 'custom' = 'catch-up';
  #policy: PitPolicy = catchUpPolicy;
  #fault: string | undefined;

  /** @throws TypeError when it is neither a policy's name nor a function. */
  constructor(policy: PolicyName | PitPolicy) {
    this.set(policy);
  }

  /** Another policy from now on; a fault of the one before is forgotten. @throws TypeError as the constructor. */
  set(policy: PolicyName | PitPolicy): void {
    const checked = checkPolicy(policy);
    this.#name = typeof checked === 'function' ? 'custom' : checked;
    this.#policy = typeof checked === 'function' ? checked : BUILT_IN[checked];
    this.#fault = undefined;
  }

  get name(): PolicyName | 'custom' {
    return this.#name;
  }

  /** What the policy did wrong, since when the kernel's reinjection stands in for it. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** Whether the kernel shall reinject while the policy is not asked, because no rate is programmed. */
  get reinjectsByDefault(): boolean {
    return this.#fault !== undefined || this.#name === 'reinject';
  }

  decide(input: PolicyInput): CheckedDecision {
    if (this.#fault === undefined) {
      try {
        const decision = check(input, this.#policy(input));
        if (typeof decision !== 'string') return decision;
        this.#fault = decision;
      } catch (error) {
        this.#fault = `threw ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`;
      }
    }
    const fallback = check(input, reinjectPolicy(input));
    if (typeof fallback === 'string') throw new Error(`bug: the reinject policy is refused: ${fallback}`);
    return fallback;
  }
}

/** The decision completed, or a text that says what is wrong with it. */
function check(input: PolicyInput, answer: unknown): CheckedDecision | string {
  if (typeof answer !== 'object' || answer === null) return `answered ${typeof answer} instead of a decision`;
  const { phase, count, periodNs, reinject, forgiveTicks, forgiveReason, expiryNs } = answer as Record<string, unknown>;
  const { nominal, limits, ledger } = input;
  if (!PHASES.includes(phase))
    return `answered a phase that is none, ${typeof phase === 'string' ? phase : describe(phase)}`;
  if (typeof reinject !== 'boolean') return `answered reinject: ${describe(reinject)}`;
  const wanted = typeof periodNs === 'bigint' && count === undefined ? countOf(periodNs) : count;
  if (typeof wanted !== 'number' || !Number.isInteger(wanted)) return `answered count: ${describe(wanted)}`;
  const isNominal = wanted === nominal.count;
  if (!isNominal && (wanted < limits.minCount || wanted > limits.maxCount)) {
    return `answered count ${wanted}, which is not from ${limits.minCount} to ${limits.maxCount}`;
  }
  if (!isNominal && 1e9 / Number(kernelPeriodNs(wanted, limits.minPeriodNs)) > limits.maxRateHz * 1.0001) {
    return `answered count ${wanted}, which is above the cap of ${limits.maxRateHz} Hz`;
  }
  const forgiven = forgiveTicks ?? 0n;
  const owed = ledger.owedTicks > 0n ? ledger.owedTicks : 0n;
  if (typeof forgiven !== 'bigint' || forgiven < 0n || forgiven > owed) {
    return `answered forgiveTicks: ${describe(forgiven)} with ${owed} owed`;
  }
  if (!isNominal && (typeof expiryNs !== 'bigint' || expiryNs <= 0n)) {
    return `answered another rate than nominal with expiryNs: ${describe(expiryNs)}`;
  }
  // A few control periods at most; a tick of a slow guest must still fit in.
  const longestNs = larger(limits.maxExpiryNs, 3n * kernelPeriodNs(wanted, limits.minPeriodNs));
  return {
    phase: phase as PolicyPhase,
    count: wanted,
    reinject,
    forgiveTicks: forgiven,
    gaveUp: forgiveReason === 'give-up' && forgiven > 0n,
    expiryNs: isNominal ? undefined : smaller(expiryNs as bigint, longestNs),
  };
}

const countOf = (periodNs: bigint) => (periodNs > 0n && periodNs < 10n ** 12n ? countAtLeast(periodNs) : Number.NaN);
const describe = (value: unknown): string =>
  typeof value === 'bigint' ? `${value}n` : typeof value === 'number' ? `${value}` : `a ${typeof value}`;
const smaller = (a: bigint, b: bigint) => (a < b ? a : b);
const larger = (a: bigint, b: bigint) => (a > b ? a : b);

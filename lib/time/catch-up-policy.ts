/**
 * The default policy (rows T4, T10): a table from lag to extra speed that only rises within an episode, bounded by the cap, the
 * storm monitor and the kernel. It never steps anything: what is owed is paid by ticks that come sooner, a lead by later ones.
 *
 *   nominal --owed > enter--> catch-up --the rest is below what can be paid--> nominal
 *   nominal --ahead > tolerance--> slow-down --lead paid--> nominal
 *
 * Debt is taken at the moment of a tick. Between ticks what is owed rises by one period and falls again; aiming at the
 * moment of a tick makes the end exact. Every rate but nominal ends by itself when the debt is predicted to be paid.
 */
import { countAtLeast, hostCount, kernelPeriodNs } from './counts.js';
import { nominalDecision, type PitPolicy, type PolicyDecision, type PolicyInput, type PolicyPhase } from './policy.js';

/** Leads are paid at this period, in nominal ones; the longer from a quarter of a second on. */
const SLOW_PERIOD = 1.25;
const SLOWEST_PERIOD = 2;
const LONG_LEAD_NS = 250_000_000;
/** A debt below this share of a period is not worth two loads. */
const TRIFLE = 0.5;
/** A stretch ends this share of a period after its last tick, so that the load loses nothing and no further tick is fired. */
const AFTER_TICK = 0.25;
/** A raise of less than this is none. */
const LEAST_GAIN = 0.002;

export const catchUpPolicy: PitPolicy = (input) => {
  const { ledger, limits, episode } = input;
  if (ledger.owedNs >= limits.giveUpNs) {
    return { ...nominalDecision(input, false), forgiveTicks: ledger.owedTicks, forgiveReason: 'give-up' };
  }
  const phase = nextPhase(input);
  if (phase === 'nominal') return nominalDecision(input, false);
  // On a dead signal nobody raises a rate; the phase is kept, since what is owed is still owed.
  if (input.silent) return { ...nominalDecision(input, false), phase: episode.phase };
  const basePeriodNs = phase === 'catch-up' ? raisedPeriodNs(input) : slowedPeriodNs(input);
  return plan(input, phase, basePeriodNs);
};

/** The speed that the table gives for a lag, in nominal rates. */
export function tableSpeed(input: PolicyInput): number {
  let speed = 1;
  for (const step of input.limits.profile.speeds) if (input.ledger.owedNs >= step.lagNs) speed = step.speed;
  return speed;
}

/**
 * What is owed at the moment of a tick, in ns: now, less the part of a period that has gone since the last one. Where that is
 * unknown, half a period for a debt and nothing for a lead, so that neither is taken for more than it may be.
 */
export function debtNs(input: PolicyInput): number {
  const { sinceTickNs } = input.firing;
  const owed = Number(input.ledger.owedNs);
  if (sinceTickNs !== undefined) return owed - Number(sinceTickNs);
  return owed > 0 ? Math.max(0, owed - Number(input.nominal.periodNs) / 2) : owed;
}

function nextPhase(input: PolicyInput): PolicyPhase {
  const { limits, episode, nominal } = input;
  const period = Number(nominal.periodNs);
  const tolerance = Number(limits.toleranceNs);
  const debt = debtNs(input);
  // What is owed swings by a period: it stays within the tolerance when the debt is a period below it.
  const settled = Math.max(TRIFLE * period, tolerance - period);
  if (episode.phase === 'catch-up' && debt > settled && canRaise(input)) return 'catch-up';
  if (input.ledger.owedNs > limits.enterNs && canRaise(input)) return 'catch-up';
  if (!limits.slowDown || slowedPeriodNs(input) < period * (1 + LEAST_GAIN)) return 'nominal';
  if (episode.phase === 'slow-down' && debt < -settled) return 'slow-down';
  // By half a period the beginning of the books is uncertain (TickLedger.begin): not a lead yet.
  return debt < -tolerance - period / 2 ? 'slow-down' : 'nominal';
}

function canRaise(input: PolicyInput): boolean {
  return raisedPeriodNs(input) < Number(input.nominal.periodNs) * (1 - LEAST_GAIN);
}

/** The shortest period allowed, as the kernel will fire it. */
function raisedPeriodNs(input: PolicyInput): number {
  const { limits, storm, episode, nominal } = input;
  const speed = Math.max(episode.phase === 'catch-up' ? episode.speed : 1, tableSpeed(input));
  const wantedNs = Math.max(
    Number(nominal.periodNs) / Math.min(speed, limits.profile.maxSpeed),
    1e9 / limits.maxRateHz,
    1e9 / storm.limitHz,
  );
  return Number(kernelPeriodNs(roundedCount(input, wantedNs), limits.minPeriodNs));
}

function slowedPeriodNs(input: PolicyInput): number {
  const factor = -debtNs(input) > LONG_LEAD_NS ? SLOWEST_PERIOD : SLOW_PERIOD;
  const count = roundedCount(input, Number(input.nominal.periodNs) * factor);
  return Number(kernelPeriodNs(count, input.limits.minPeriodNs));
}

/** Pays the debt, or as much of it as fits before the latest expiry, at `basePeriodNs` or nearer to nominal. */
function plan(input: PolicyInput, phase: 'catch-up' | 'slow-down', basePeriodNs: number): PolicyDecision {
  const { firing, limits, nominal } = input;
  const period = Number(nominal.periodNs);
  const debt = debtNs(input);
  const longestNs = Math.max(Number(limits.maxExpiryNs), 2 * basePeriodNs);
  // A stretch that fits but for what is left after its last tick ends a little sooner after that tick.
  const decide = (count: number, expiryNs: number): PolicyDecision => ({
    phase,
    count,
    reinject: false,
    expiryNs: BigInt(Math.round(Math.min(expiryNs, longestNs))),
  });
  const since = Number(firing.sinceTickNs ?? 0n);
  const wholeTicks = (periodNs: number) => Math.floor(debt / (period - periodNs));
  const afterTicks = (ticks: number, periodNs: number) => (ticks + AFTER_TICK) * periodNs;

  if (wholeTicks(basePeriodNs) * basePeriodNs > longestNs) {
    return decide(roundedCount(input, basePeriodNs), longestNs);
  }
  // The last stretch. The count in force stays if a whole number of its ticks comes near enough.
  const inForceNs = Number(firing.periodNs);
  const allowed = phase === 'catch-up' ? inForceNs >= basePeriodNs * 0.99 : inForceNs <= basePeriodNs * 1.01;
  const differs = Math.abs(inForceNs - period) > LEAST_GAIN * period && inForceNs < period === (phase === 'catch-up');
  if (firing.expiresInNs !== undefined && allowed && differs) {
    const ticks = wholeTicks(inForceNs);
    const rest = Math.abs(debt - ticks * (period - inForceNs));
    if (ticks >= 1 && rest <= TRIFLE * period && ticks * inForceNs <= longestNs) {
      return decide(firing.count, afterTicks(ticks, inForceNs) - since);
    }
  }
  const count = roundedCount(input, period - debt / Math.ceil(debt / (period - basePeriodNs)));
  const periodNs = Number(kernelPeriodNs(count, limits.minPeriodNs));
  const ticks = periodNs < period === (phase === 'catch-up') && periodNs !== period ? wholeTicks(periodNs) : 0;
  if (ticks < 1) return nominalDecision(input, false);
  return decide(count, afterTicks(ticks, periodNs));
}

function roundedCount({ limits }: PolicyInput, periodNs: number): number {
  const count = hostCount(countAtLeast(BigInt(Math.ceil(periodNs))));
  return Math.min(limits.maxCount, Math.max(limits.minCount, count));
}

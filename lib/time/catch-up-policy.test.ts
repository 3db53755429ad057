/** The default policy as a pure function: its table, its bounds, its ends, and the worked example of the patent's figure. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { catchUpPolicy } from './catch-up-policy.js';
import { boundsFor, checkPitOptions, type PitOptions } from './configuration.js';
import { kernelPeriodNs, MAX_HOST_COUNT, tickUnitsOf, UNITS_PER_NS } from './counts.js';
import { TickLedger } from './ledger.js';
import type { PolicyInput } from './policy.js';
import { PolicyGuard } from './policy-guard.js';
import { discardPolicy, reinjectPolicy } from './simple-policies.js';

const MIN_PERIOD_NS = 200_000n;

interface Situation {
  readonly count?: number;
  /** In the host's ns. */
  readonly owedNs?: bigint;
  readonly firing?: number;
  readonly phase?: PolicyInput['episode']['phase'];
  readonly speed?: number;
  readonly options?: PitOptions;
  readonly silent?: boolean;
  readonly stormHz?: number;
  readonly slowDown?: boolean;
  readonly sinceTickNs?: bigint;
}

function inputFor(situation: Situation): PolicyInput {
  const count = situation.count ?? 1193;
  const firing = situation.firing ?? count;
  const owedNs = situation.owedNs ?? 0n;
  const tickUnits = tickUnitsOf(count, MIN_PERIOD_NS);
  const periodNs = tickUnits / UNITS_PER_NS;
  const ticks = (owedNs * UNITS_PER_NS) / tickUnits;
  const owedTicks = owedNs < 0n ? ticks - 1n : ticks;
  return {
    nowNs: 0n,
    ledger: {
      expectedTicks: 1000n + owedTicks,
      deliveredTicks: 1000n,
      forgivenTicks: 0n,
      owedTicks,
      owedUnits: owedNs * UNITS_PER_NS,
      owedNs,
    },
    nominal: { programmedCount: count, programmedHz: 1_193_182 / count, count, periodNs, hz: 1e9 / Number(periodNs) },
    firing: {
      count: firing,
      periodNs: kernelPeriodNs(firing, MIN_PERIOD_NS),
      sinceTickNs: situation.sinceTickNs ?? 0n,
      expiresInNs: firing === count ? undefined : 50_000_000n,
    },
    recent: { windowNs: 20_000_000n, fired: 20n, delivered: 20n },
    silent: situation.silent ?? false,
    episode: { phase: situation.phase ?? 'nominal', speed: situation.speed ?? 1, startedNs: undefined },
    storm: { limitHz: situation.stormHz ?? Number.POSITIVE_INFINITY, active: situation.stormHz !== undefined },
    limits: {
      ...boundsFor(checkPitOptions(situation.options), 1_193_182 / count, periodNs),
      minPeriodNs: MIN_PERIOD_NS,
      minCount: 239,
      maxCount: Math.min(MAX_HOST_COUNT, 2 * count),
      slowDown: situation.slowDown ?? true,
      controlPeriodNs: 20_000_000n,
      maxExpiryNs: 100_000_000n,
    },
  };
}

const MS = 1_000_000n;
const hz = (count: number | undefined) => 1e9 / Number(kernelPeriodNs(count ?? 1, MIN_PERIOD_NS));

describe('catchUpPolicy', () => {
  it.each([
    [0n, 'nominal', 1],
    [5n, 'nominal', 1],
    [6n, 'catch-up', 1.25],
    [30n, 'catch-up', 1.5],
    [150n, 'catch-up', 2],
    [500n, 'catch-up', 3],
    [2000n, 'catch-up', 4],
    [59_000n, 'catch-up', 4],
  ])('answers a lag of %i ms of a 1000 Hz guest with %s at %f times nominal', (lagMs, phase, speed) => {
    const decision = catchUpPolicy(inputFor({ owedNs: lagMs * MS }));
    expect(decision.phase).toBe(phase);
    expect(hz(decision.count) / 1000).toBeGreaterThan(speed * 0.97);
    expect(hz(decision.count) / 1000).toBeLessThanOrEqual(speed * 1.001);
    if (speed === 1) expect(decision.expiryNs).toBeUndefined();
    else expect(decision.expiryNs).toBeLessThanOrEqual(100n * MS);
  });

  it('keeps the speed that the episode has reached', () => {
    const at = (speed: number) => hz(catchUpPolicy(inputFor({ owedNs: 90n * MS, phase: 'catch-up', speed })).count);
    expect(at(1.25)).toBeLessThan(1510);
    expect(at(4)).toBeGreaterThan(3800);
  });

  it('enters above the enter threshold and stays until what is left is not worth a load', () => {
    const phaseAt = (owedNs: bigint, phase: 'nominal' | 'catch-up') =>
      catchUpPolicy(inputFor({ owedNs, phase, speed: 1.25 })).phase;
    expect(phaseAt(5n * MS, 'nominal')).toBe('nominal');
    expect(phaseAt(5n * MS, 'catch-up')).toBe('catch-up');
    expect(phaseAt(2n * MS, 'catch-up')).toBe('catch-up');
    expect(phaseAt(400_000n, 'catch-up')).toBe('nominal');
    const tolerant = { owedNs: 20n * MS, options: { enterMs: 50, toleranceMs: 30 } };
    expect(catchUpPolicy(inputFor({ ...tolerant, phase: 'catch-up' })).phase).toBe('nominal');
  });

  it('gives up what is too much, and says so', () => {
    const decision = catchUpPolicy(inputFor({ owedNs: 60_000n * MS }));
    expect(decision).toMatchObject({ phase: 'nominal', count: 1193, forgiveReason: 'give-up' });
    expect(decision.forgiveTicks).toBeGreaterThan(59_900n);
  });

  it('raises nothing on a dead signal, and slows nothing for a guest that refused it', () => {
    expect(catchUpPolicy(inputFor({ owedNs: 500n * MS, silent: true }))).toMatchObject({
      phase: 'nominal',
      count: 1193,
    });
    expect(catchUpPolicy(inputFor({ owedNs: 500n * MS, silent: true, phase: 'catch-up', firing: 398 }))).toMatchObject({
      phase: 'catch-up',
      count: 1193,
    });
    expect(catchUpPolicy(inputFor({ owedNs: -50n * MS, slowDown: false })).phase).toBe('nominal');
  });

  it('does not begin where the cap leaves nothing to gain', () => {
    expect(catchUpPolicy(inputFor({ owedNs: 500n * MS, options: { maxRateHz: 1000 } })).phase).toBe('nominal');
    expect(catchUpPolicy(inputFor({ owedNs: 500n * MS, count: 239 })).phase).toBe('nominal');
    expect(catchUpPolicy(inputFor({ owedNs: 500n * MS, options: { profile: 'tickless' } })).phase).toBe('nominal');
  });

  it('is slower when the storm monitor says so, and never below a little more than nominal', () => {
    const decision = catchUpPolicy(inputFor({ owedNs: 2000n * MS, stormHz: 1040 }));
    expect(hz(decision.count)).toBeLessThanOrEqual(1040.5);
    expect(hz(decision.count)).toBeGreaterThan(1030);
  });

  it('slows a guest that is ahead, by at most twice its period', () => {
    expect(catchUpPolicy(inputFor({ owedNs: -900_000n }))).toMatchObject({ phase: 'nominal' });
    const little = catchUpPolicy(inputFor({ owedNs: -10n * MS }));
    expect(little.phase).toBe('slow-down');
    expect(hz(little.count)).toBeGreaterThan(799);
    const much = catchUpPolicy(inputFor({ owedNs: -3000n * MS }));
    expect(much.count).toBe(2386);
    expect(much.expiryNs).toBeLessThanOrEqual(100n * MS);
    expect(catchUpPolicy(inputFor({ owedNs: -3000n * MS, count: 65536 })).count).toBe(131_072);
  });

  const situation = fc.record({
    count: fc.integer({ min: 239, max: 65536 }),
    owedNs: fc.bigInt(-10_000n * MS, 59_000n * MS),
    phase: fc.constantFrom('nominal' as const, 'catch-up' as const, 'slow-down' as const),
    speed: fc.double({ min: 1, max: 4, noNaN: true }),
    sinceShare: fc.double({ min: 0, max: 0.999, noNaN: true }),
    firingShare: fc.double({ min: 0.25, max: 2, noNaN: true }),
    stormShare: fc.option(fc.double({ min: 1.03, max: 4, noNaN: true })),
  });

  const build = (given: typeof situation extends fc.Arbitrary<infer T> ? T : never): PolicyInput => {
    const firing = Math.max(239, Math.min(MAX_HOST_COUNT, Math.round(given.count * given.firingShare)));
    const nominalHz = 1_193_182 / given.count;
    return inputFor({
      ...given,
      firing,
      sinceTickNs: BigInt(Math.floor(Number(kernelPeriodNs(firing, MIN_PERIOD_NS)) * given.sinceShare)),
      ...(given.stormShare === null ? {} : { stormHz: given.stormShare * nominalHz }),
    });
  };

  it('never ends beyond what is owed, never passes its bounds, and gives every other rate an end', () => {
    fc.assert(
      fc.property(situation, (given) => {
        const input = build(given);
        const decision = catchUpPolicy(input);
        const guard = new PolicyGuard(catchUpPolicy);
        guard.decide(input);
        expect(guard.fault).toBeUndefined();
        if (decision.count === input.nominal.count) return;
        const periodNs = Number(kernelPeriodNs(decision.count!, MIN_PERIOD_NS));
        const nominalNs = Number(input.nominal.periodNs);
        expect(1e9 / periodNs).toBeLessThanOrEqual(Math.min(input.limits.maxRateHz, input.storm.limitHz) * 1.001);
        const expiryNs = Number(decision.expiryNs);
        expect(expiryNs).toBeLessThanOrEqual(Math.max(100e6, 3 * periodNs));
        // Ticks that the stretch fires, from the phase that the PIT has if the count stays, else from a fresh load.
        const sinceNs = decision.count === input.firing.count ? Number(input.firing.sinceTickNs) : 0;
        const paidNs = Math.floor((expiryNs + sinceNs) / periodNs) * (nominalNs - periodNs);
        const debtNs = Number(input.ledger.owedNs) - Number(input.firing.sinceTickNs);
        expect(Math.abs(paidNs)).toBeLessThanOrEqual(Math.abs(debtNs) + 0.01 * nominalNs);
        expect(Math.sign(paidNs) * Math.sign(debtNs)).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 2000 },
    );
  });

  it('depends on its input alone', () => {
    fc.assert(
      fc.property(situation, situation, (first, second) => {
        const input = build(first);
        const before = catchUpPolicy(input);
        catchUpPolicy(build(second));
        expect(catchUpPolicy(structuredClone(input))).toEqual(before);
      }),
    );
  });
});

describe('the worked example of the figure of US8533709B2 (T11)', () => {
  it('goes from 5 of 5 to 3 of 5, then fires 7, then is nominal again', () => {
    // 64 Hz; a window is five periods, so two lost ticks are 31 ms, for which the table has a speed of 1.5.
    const count = 18643;
    const periodNs = tickUnitsOf(count, MIN_PERIOD_NS) / UNITS_PER_NS;
    const windowNs = 5n * periodNs;
    const options = { enterMs: 20, toleranceMs: 16 };
    const ledger = new TickLedger({ nowNs: 0n, minPeriodNs: MIN_PERIOD_NS });
    ledger.reprogram(0n, count, 2);
    let nowNs = 0n;
    let phase: PolicyInput['episode']['phase'] = 'nominal';

    /** A window passes in which the guest takes `received` ticks. How many will be fired in the next one? */
    const windowWith = (received: bigint) => {
      nowNs += windowNs;
      // The period is no whole number of ns; what it leaves over is not what this example is about.
      ledger.advance(nowNs + 1000n);
      ledger.deliver(received);
      const owed = ledger.owedTicks;
      const decision = catchUpPolicy(inputFor({ count, owedNs: ledger.owedNs, phase, options }));
      phase = decision.phase;
      const raisedNs = decision.expiryNs ?? 0n;
      const raised = raisedNs / kernelPeriodNs(decision.count!, MIN_PERIOD_NS);
      // The end of the stretch restarts the period.
      const nominal = (windowNs - raisedNs) / kernelPeriodNs(count, MIN_PERIOD_NS);
      return { owed, phase, raised: decision.expiryNs === undefined ? 0n : raised, fired: raised + nominal };
    };
    const steady = { owed: 0n, phase: 'nominal', raised: 0n };
    expect(windowWith(5n)).toMatchObject(steady);
    // Two are missing: seven ticks in the time of five.
    expect(windowWith(3n)).toEqual({ owed: 2n, phase: 'catch-up', raised: 7n, fired: 7n });
    expect(windowWith(7n)).toMatchObject(steady);
    expect(windowWith(5n)).toMatchObject(steady);
  });
});

describe('the simple policies', () => {
  it('reinject only watches', () => {
    expect(reinjectPolicy(inputFor({ owedNs: 5000n * MS }))).toEqual({ phase: 'nominal', count: 1193, reinject: true });
  });

  it('discard forgives what is lost, but not what is under way', () => {
    expect(discardPolicy(inputFor({ owedNs: MS }))).toEqual({ phase: 'nominal', count: 1193, reinject: false });
    expect(discardPolicy(inputFor({ owedNs: 500n * MS }))).toMatchObject({
      reinject: false,
      forgiveTicks: 499n,
      forgiveReason: 'discarded',
    });
  });
});

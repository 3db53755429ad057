/** A user's policy can throw or answer nonsense: the guard names the fault and the kernel's reinjection stands in for it. */
import { describe, expect, it } from 'vitest';
import type { PolicyDecision, PolicyInput } from './policy.js';
import { PolicyGuard } from './policy-guard.js';

const LIMITS = { minCount: 239, maxCount: 2386, maxRateHz: 4000, minPeriodNs: 200_000n, maxExpiryNs: 100_000_000n };
const INPUT = {
  ledger: { owedTicks: 10n },
  nominal: { count: 1193 },
  limits: LIMITS,
} as unknown as PolicyInput;

const RAISED: PolicyDecision = { phase: 'catch-up', count: 600, reinject: false, expiryNs: 50_000_000n };

describe('PolicyGuard', () => {
  it('passes on a decision that can be used, completed', () => {
    expect(new PolicyGuard(() => RAISED).decide(INPUT)).toEqual({ ...RAISED, forgiveTicks: 0n, gaveUp: false });
    const byPeriod = { phase: 'catch-up' as const, periodNs: 500_000n, reinject: false, expiryNs: 1n };
    expect(new PolicyGuard(() => byPeriod).decide(INPUT)).toMatchObject({ count: 597, expiryNs: 1n });
    const forgiving = { phase: 'nominal' as const, count: 1193, reinject: true, forgiveTicks: 10n };
    expect(new PolicyGuard(() => ({ ...forgiving, forgiveReason: 'give-up' })).decide(INPUT)).toEqual({
      ...forgiving,
      gaveUp: true,
      expiryNs: undefined,
    });
  });

  it('shortens an expiry that is longer than a few control periods', () => {
    const guard = new PolicyGuard(() => ({ ...RAISED, expiryNs: 10_000_000_000n }));
    expect(guard.decide(INPUT).expiryNs).toBe(100_000_000n);
  });

  it.each([
    ['nothing', undefined, /undefined/],
    ['null', null, /object/],
    ['text', 'nominal', /string/],
    ['an unknown phase', { ...RAISED, phase: 'stand-down' }, /phase that is none, stand-down/],
    ['a count that is NaN', { ...RAISED, count: Number.NaN }, /count: NaN/],
    ['a fraction of a count', { ...RAISED, count: 600.5 }, /count: 600.5/],
    ['a count as a bigint', { ...RAISED, count: 600n }, /count: 600n/],
    ['no count at all', { phase: 'nominal', reinject: false }, /count/],
    ['a count below the kernel’s', { ...RAISED, count: 100 }, /not from 239 to 2386/],
    ['a count above twice nominal', { ...RAISED, count: 3000 }, /not from 239 to 2386/],
    ['a rate above the cap', { ...RAISED, count: 250 }, /above the cap of 4000 Hz/],
    ['a period of 0', { ...RAISED, count: undefined, periodNs: 0n }, /NaN/],
    ['no expiry', { ...RAISED, expiryNs: undefined }, /expiryNs/],
    ['an expiry in the past', { ...RAISED, expiryNs: -1n }, /expiryNs/],
    ['an expiry in milliseconds', { ...RAISED, expiryNs: 50 }, /expiryNs: 50/],
    ['reinject that is no boolean', { ...RAISED, reinject: 1 }, /reinject: 1/],
    ['more forgiven than owed', { ...RAISED, forgiveTicks: 11n }, /forgiveTicks: 11n with 10 owed/],
    ['a negative forgiveness', { ...RAISED, forgiveTicks: -1n }, /forgiveTicks/],
    ['NaN forgiven', { ...RAISED, forgiveTicks: Number.NaN }, /forgiveTicks: NaN/],
  ])('puts a policy aside that answers %s', (_what, answer, fault) => {
    const guard = new PolicyGuard(() => answer as never);
    expect(guard.decide(INPUT)).toMatchObject({ phase: 'nominal', count: 1193, reinject: true, forgiveTicks: 0n });
    expect(guard.fault).toMatch(fault);
  });

  it('asks a policy that threw no more, until another is set', () => {
    let calls = 0;
    const guard = new PolicyGuard(() => {
      calls++;
      throw new RangeError('of my own');
    });
    expect(guard.decide(INPUT).reinject).toBe(true);
    expect(guard.decide(INPUT).reinject).toBe(true);
    expect(calls).toBe(1);
    expect(guard.fault).toBe('threw RangeError: of my own');
    expect(guard.reinjectsByDefault).toBe(true);
    guard.set(() => RAISED);
    expect(guard.fault).toBeUndefined();
    expect(guard.decide(INPUT).count).toBe(600);
    expect(guard.name).toBe('custom');
    guard.set('discard');
    expect(guard.reinjectsByDefault).toBe(false);
    guard.set('reinject');
    expect(guard.reinjectsByDefault).toBe(true);
    expect(() => guard.set('other' as never)).toThrow(TypeError);
  });

  it('survives whatever is thrown', () => {
    const guard = new PolicyGuard(() => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- a user's policy may
      throw 'text';
    });
    guard.decide(INPUT);
    expect(guard.fault).toBe('threw text');
  });
});

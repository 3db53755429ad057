/** The pit options: what is impossible is refused by name, and bounds follow what the guest programs. */
import { describe, expect, it } from 'vitest';
import { boundsFor, checkPitOptions, timeScaleBounds, toTimeScale } from './configuration.js';
import { nominalOf } from './nominal.js';
import { REAL_TIME } from './ledger.js';

const MIN_PERIOD_NS = 200_000n;
const MS = 1_000_000n;
const FEEDBACK = { gpa: 0x46c, widthBytes: 4, rateHz: 18.2 } as const;

describe('checkPitOptions', () => {
  it('fills in the defaults', () => {
    expect(checkPitOptions()).toEqual({
      policy: 'catch-up',
      enterNs: undefined,
      toleranceNs: undefined,
      maxRateHz: undefined,
      giveUpNs: 60_000n * MS,
      profile: 'auto',
      feedback: undefined,
      timeScale: { numerator: 1_000_000n, denominator: 1_000_000n },
    });
  });

  it.each([
    [{ enterMs: 10, toleranceMs: 2, giveUpMs: 1000, maxRateHz: 2000, profile: '1000hz', timeScale: 2 }],
    [{ policy: 'discard', feedback: { ...FEEDBACK, wrapsAt: 0x1800b0 } }],
    [
      {
        policy: () => ({ phase: 'nominal', count: 1, reinject: true }),
        feedback: { ...FEEDBACK, rateHz: 'programmed' },
      },
    ],
    [{ enterMs: 0, toleranceMs: 0 }],
  ])('takes %o', (options) => {
    expect(() => checkPitOptions(options as never)).not.toThrow();
  });

  it.each([
    [{ polcy: 'catch-up' }, TypeError, /did you mean 'policy'/],
    [{ policy: 'catchup' }, TypeError, /pit.policy/],
    [{ policy: null }, undefined, undefined],
    [{ enterMs: -1 }, RangeError, /pit.enterMs/],
    [{ enterMs: Number.NaN }, TypeError, /pit.enterMs/],
    [{ toleranceMs: '5' }, TypeError, /pit.toleranceMs/],
    [{ enterMs: 5, toleranceMs: 6 }, RangeError, /above enterMs/],
    [{ maxRateHz: 0 }, RangeError, /pit.maxRateHz/],
    [{ maxRateHz: Number.NaN }, TypeError, /pit.maxRateHz/],
    [{ maxRateHz: 2_000_000 }, RangeError, /pit.maxRateHz/],
    [{ giveUpMs: -1 }, RangeError, /pit.giveUpMs/],
    [{ enterMs: 100, giveUpMs: 50 }, RangeError, /giveUpMs: 50 is not above enterMs, 100/],
    [{ enterMs: 70_000 }, RangeError, /giveUpMs: 60000/],
    [{ profile: 'dos' }, TypeError, /pit.profile/],
    [{ timeScale: 0.05 }, RangeError, /from 0.1 to 10/],
    [{ timeScale: 11 }, RangeError, /from 0.1 to 10/],
    [{ timeScale: Number.NaN }, TypeError, /pit.timeScale/],
    [{ feedback: { ...FEEDBACK, width: 4 } }, TypeError, /unknown option 'width'/],
    [{ feedback: { ...FEEDBACK, widthBytes: 3 } }, RangeError, /widthBytes: 3/],
    [{ feedback: { ...FEEDBACK, gpa: -1 } }, RangeError, /gpa/],
    [{ feedback: { ...FEEDBACK, rateHz: 0 } }, RangeError, /rateHz/],
    [{ feedback: { ...FEEDBACK, widthBytes: 1, wrapsAt: 257 } }, RangeError, /wrapsAt/],
    [{ feedback: 0x46c }, TypeError, /pit.feedback/],
    ['catch-up', TypeError, /options object/],
  ])('refuses %o', (options, kind, reason) => {
    if (kind === undefined) return expect(checkPitOptions(options as never).policy).toBe('catch-up');
    expect(() => checkPitOptions(options as never)).toThrow(kind);
    expect(() => checkPitOptions(options as never)).toThrow(reason);
  });
});

describe('boundsFor', () => {
  const at = (hz: number, options = {}) => boundsFor(checkPitOptions(options), hz, BigInt(Math.round(1e9 / hz)));

  it.each([
    [18.2065, 'bios-dos', 110, 72.8],
    [64, '64hz', 31.25, 256],
    [100, '100hz', 20, 400],
    [250, '250hz', 8, 1000],
    [1000, '1000hz', 5, 4000],
    [4000, '1000hz', 5, 5000],
  ])('has for a guest of %f Hz the profile %s, entered at %f ms, with a cap of %f Hz', (hz, name, enterMs, capHz) => {
    const bounds = at(hz);
    expect(bounds.profile.name).toBe(name);
    expect(Number(bounds.enterNs) / 1e6).toBeCloseTo(enterMs, 0);
    expect(bounds.maxRateHz).toBeCloseTo(capHz, 0);
    expect(Number(bounds.toleranceNs)).toBeCloseTo(1e9 / hz, 0);
    expect(bounds.capIsClamped).toBe(false);
  });

  it('takes a named profile within its range, and the fitting one outside', () => {
    expect(at(1000, { profile: '1000hz' }).profile.name).toBe('1000hz');
    expect(at(18.2, { profile: '1000hz' }).profile.name).toBe('bios-dos');
    expect(at(1000, { profile: 'tickless' })).toMatchObject({ profile: { name: 'tickless' }, maxRateHz: 1000 });
    expect(boundsFor(checkPitOptions(), undefined, MS).profile.name).toBe('tickless');
  });

  it('raises a cap that is below nominal, and says so', () => {
    expect(at(1000, { maxRateHz: 500 })).toMatchObject({ maxRateHz: 1000, capIsClamped: true });
    expect(at(250, { maxRateHz: 500 })).toMatchObject({ maxRateHz: 500, capIsClamped: false });
  });

  it('keeps the tolerance at or below the enter threshold, whichever is given', () => {
    expect(at(100, { enterMs: 4 })).toMatchObject({ enterNs: 4n * MS, toleranceNs: 4n * MS });
    expect(at(1000, { toleranceMs: 50 })).toMatchObject({ enterNs: 50n * MS, toleranceNs: 50n * MS });
  });
});

describe('time scale', () => {
  it('is exact in millionths', () => {
    expect(toTimeScale(0.1)).toEqual({ numerator: 100_000n, denominator: 1_000_000n });
    expect(toTimeScale(1 / 3)).toEqual({ numerator: 333_333n, denominator: 1_000_000n });
  });

  it('is bounded by what the kernel can fire of the programmed count', () => {
    expect(timeScaleBounds(0, MIN_PERIOD_NS)).toEqual({ min: 0.1, max: 10 });
    expect(timeScaleBounds(1193, MIN_PERIOD_NS)).toEqual({ min: 0.1, max: 4.99924 });
    expect(timeScaleBounds(65536, MIN_PERIOD_NS)).toEqual({ min: 0.5, max: 10 });
    expect(timeScaleBounds(1, MIN_PERIOD_NS).max).toBe(1);
  });

  it('gives the count that fires a tick in its time, and is held within bounds', () => {
    expect(nominalOf(1193, 2, REAL_TIME, MIN_PERIOD_NS)).toMatchObject({ count: 1193, periodNs: 999_847n });
    const fast = nominalOf(4773, 2, toTimeScale(4), MIN_PERIOD_NS);
    expect(fast).toMatchObject({ count: 1193, isClamped: false });
    expect(fast.hz).toBeCloseTo(999.94, 1);
    const tooFast = nominalOf(1193, 2, toTimeScale(10), MIN_PERIOD_NS);
    expect(Number(tooFast.scale.numerator) / 1e6).toBeCloseTo(4.999, 3);
    expect(nominalOf(1, 2, toTimeScale(2), MIN_PERIOD_NS)).toMatchObject({ count: 1, isClamped: true, hz: 5000 });
    expect(nominalOf(1193, 0, REAL_TIME, MIN_PERIOD_NS).periodic).toBe(false);
  });
});

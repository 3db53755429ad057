/** The credit of a window with a reprogramming in it: near the truth when nothing is lost, within its bound always. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { kernelPeriodNs, tickUnitsOf, UNITS_PER_NS } from './counts.js';
import { Firing } from './firing.js';
import { creditUnseen, creditWindow, type FiringRate } from './window-credit.js';

const MIN_PERIOD_NS = 200_000n;
const rate = (count: number, firing = count): FiringRate => ({
  periodNs: kernelPeriodNs(firing, MIN_PERIOD_NS),
  tickUnits: tickUnitsOf(count, MIN_PERIOD_NS),
});
const absolute = (value: bigint) => (value < 0n ? -value : value);

describe('creditWindow', () => {
  it('splits the ticks of one reprogramming to within a tick or two when none is lost', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 239, max: 65536 }),
        fc.integer({ min: 239, max: 65536 }),
        fc.bigInt(1n, 100_000_000n),
        fc.bigInt(0n, 100_000_000n),
        (countBefore, countAfter, elapsedNs, when) => {
          const before = rate(countBefore);
          const after = rate(countAfter);
          const changeNs = when % elapsedNs;
          const oldTicks = changeNs / before.periodNs;
          const newTicks = (elapsedNs - changeNs) / after.periodNs;
          const truth = oldTicks * before.tickUnits + newTicks * after.tickUnits;
          const credit = creditWindow({ ticks: oldTicks + newTicks, elapsedNs, before, after, replayed: false });
          expect(absolute(credit.units - truth)).toBeLessThanOrEqual(2n * (before.tickUnits + after.tickUnits));
          expect(absolute(credit.units - truth)).toBeLessThanOrEqual(credit.uncertainUnits);
        },
      ),
    );
  });

  it('keeps its bound for any number of changes and losses, also out of catch-up', () => {
    const part = fc.record({
      count: fc.integer({ min: 239, max: 65536 }),
      ns: fc.bigInt(0n, 30_000_000n),
      kept: fc.nat(100),
    });
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 2, maxLength: 6 }),
        fc.integer({ min: 239, max: 65536 }),
        (parts, fired) => {
          const first = parts[0]!;
          const before = rate(first.count, Math.min(first.count, fired));
          const after = rate(parts.at(-1)!.count);
          let ticks = 0n;
          let truth = 0n;
          for (const [index, { count, ns, kept }] of parts.entries()) {
            const { periodNs, tickUnits } = index === 0 ? before : rate(count);
            const taken = ((ns / periodNs) * BigInt(kept)) / 100n;
            ticks += taken;
            truth += taken * tickUnits;
          }
          const elapsedNs = parts.reduce((sum, { ns }) => sum + ns, 1n);
          const credit = creditWindow({ ticks, elapsedNs, before, after, replayed: false });
          expect(absolute(credit.units - truth)).toBeLessThanOrEqual(credit.uncertainUnits);
        },
      ),
    );
  });

  it('takes a replayed backlog for what it is', () => {
    const both = { before: rate(1193), after: rate(11932) };
    const credit = creditWindow({ ticks: 500n, elapsedNs: 20_000_000n, ...both, replayed: true });
    expect(credit.uncertainUnits).toBe(500n * 65536n * 1_000_000_000n);
    const coalesced = creditWindow({ ticks: 500n, elapsedNs: 20_000_000n, ...both, replayed: false });
    expect(coalesced.units).toBeLessThan(40_000_000n * UNITS_PER_NS);
  });

  it('gives ticks that nothing known can have fired no more time than has passed', () => {
    const credit = creditUnseen(250n, 100_000_000n, rate(1193));
    expect(credit.units).toBeLessThan(102_000_000n * UNITS_PER_NS);
    expect(credit.uncertainUnits).toBeGreaterThan(credit.units);
  });
});

describe('Firing', () => {
  it('counts what a count fires, however it is looked at, and knows the phase after a load of the host', () => {
    const firing = new Firing(1193, MIN_PERIOD_NS);
    expect(firing.sinceTickNs).toBeUndefined();
    firing.load(298, true);
    let fired = 0n;
    for (let look = 0; look < 1000; look++) fired += firing.advance(77_777n);
    expect(fired).toBe(77_777_000n / firing.periodNs);
    expect(firing.sinceTickNs).toBe(77_777_000n % firing.periodNs);
    expect(Math.round(firing.hz)).toBe(4004);
    firing.load(1193, false);
    expect(firing.sinceTickNs).toBeUndefined();
  });
});

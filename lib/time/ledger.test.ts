/** The ledger's arithmetic is exact: remainders survive reprogramming, scaling, freezing and serialisation. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countAtLeast, hostCount, kernelPeriodNs, markFor, tickUnitsOf, UNITS_PER_NS } from './counts.js';
import { TickLedger, type LedgerState } from './ledger.js';

const MIN_PERIOD_NS = 200_000n;
const OPTIONS = { nowNs: 0n, minPeriodNs: MIN_PERIOD_NS };
const SECOND = 1_000_000_000n;

function programmed(count: number, mode = 2): TickLedger {
  const ledger = new TickLedger(OPTIONS);
  ledger.reprogram(0n, count, mode);
  return ledger;
}

describe('counts', () => {
  it('knows the periods of KVM: floored, and never under its minimum', () => {
    expect(kernelPeriodNs(1193, MIN_PERIOD_NS)).toBe(999_848n);
    expect(kernelPeriodNs(65536, MIN_PERIOD_NS)).toBe(54_925_447n);
    expect(kernelPeriodNs(60, MIN_PERIOD_NS)).toBe(200_000n);
  });

  it('finds the smallest count of a period', () => {
    fc.assert(
      fc.property(fc.bigInt(200_000n, 100_000_000n), (periodNs) => {
        const count = countAtLeast(periodNs);
        expect(kernelPeriodNs(count, 1n)).toBeGreaterThanOrEqual(periodNs);
        expect(kernelPeriodNs(count - 1, 1n)).toBeLessThan(periodNs);
      }),
    );
  });

  it('chooses counts and marks that no write of one byte can look like', () => {
    fc.assert(
      fc.property(fc.nat(70_000), fc.nat(0xff), fc.integer({ min: 1, max: 65536 }), (wanted, latch, nominal) => {
        const count = hostCount(wanted);
        expect(count).toBeGreaterThanOrEqual(wanted);
        if (count <= 65536) expect(count > 255 && count % 256 !== 0).toBe(true);
        const mark = markFor([count, nominal], latch);
        expect([count & 0xff, nominal & 0xff, latch]).not.toContain(mark);
        expect(mark >= 0 && mark <= 0xff && Number.isInteger(mark)).toBe(true);
      }),
    );
  });
});

describe('TickLedger', () => {
  it('owes what the clock expects and nobody delivered', () => {
    const ledger = programmed(1193);
    ledger.advance(2n * SECOND);
    ledger.deliver(1990n);
    expect(ledger.expectedUnits).toBe(2n * SECOND * UNITS_PER_NS);
    expect(ledger.owedTicks).toBe(10n);
    expect(ledger.owedUnits).toBe(2n * SECOND * UNITS_PER_NS - 1990n * 1193n * SECOND);
    ledger.forgive(10n);
    expect(ledger.owedTicks).toBe(0n);
    expect(ledger.owedRemainderUnits).toBe(ledger.owedUnits);
    expect(ledger.expectedTicks).toBe(2000n);
  });

  it('says that the guest is ahead with negative numbers, rounded down', () => {
    const ledger = programmed(1000);
    ledger.deliver(1n);
    expect(ledger.owedTicks).toBe(-1n);
    ledger.advance(1n);
    expect(ledger.owedTicks).toBe(-1n);
    expect(ledger.owedRemainderUnits).toBe(UNITS_PER_NS);
    expect(ledger.owedNs).toBe(-838_095n);
  });

  it('counts no time while it stands down, is frozen, or has no programming', () => {
    const ledger = new TickLedger(OPTIONS);
    ledger.advance(SECOND);
    ledger.reprogram(SECOND, 1193, 0);
    ledger.advance(2n * SECOND);
    expect(ledger.expectedUnits).toBe(0n);
    ledger.reprogram(2n * SECOND, 1193, 3);
    ledger.freeze(3n * SECOND);
    ledger.unfreeze(9n * SECOND);
    ledger.standDown(10n * SECOND);
    ledger.advance(20n * SECOND);
    expect(ledger.expectedUnits).toBe(2n * SECOND * UNITS_PER_NS);
    expect(ledger.counting).toBe(false);
  });

  it('keeps what is owed across reprogramming, in ticks of the new period and with its remainder', () => {
    const ledger = programmed(1193);
    ledger.advance(100_500_000n);
    const before = ledger.owedUnits;
    ledger.reprogram(100_500_000n, 11932, 2);
    expect(ledger.owedUnits).toBe(before);
    expect(ledger.owedTicks).toBe(10n);
    ledger.reprogram(100_500_000n, 0, 0);
    expect(ledger.owedUnits).toBe(before);
    expect(ledger.owedTicks).toBe(10n);
  });

  it.each([0, 1, 100])('expects of reload value %i only what KVM can fire', (value) => {
    const count = value === 0 ? 65536 : value;
    const ledger = programmed(count);
    ledger.advance(10n * SECOND);
    const fired = (10n * SECOND) / kernelPeriodNs(count, MIN_PERIOD_NS);
    ledger.deliver(fired);
    expect(ledger.owedTicks >= -1n && ledger.owedTicks <= 0n).toBe(true);
  });

  it('begins in balance, half a period after the last tick', () => {
    const ledger = programmed(1193);
    ledger.begin(7n, 7n * 1193n * SECOND);
    expect(ledger.owedTicks).toBe(0n);
    expect(ledger.owedUnits).toBe((1193n * SECOND) / 2n);
    expect(ledger.deliveredTicks).toBe(7n);
    expect(ledger.expectedTicks).toBe(7n);
  });

  it('takes no step back in time', () => {
    const ledger = programmed(1193);
    ledger.advance(SECOND);
    ledger.advance(5n);
    ledger.advance(SECOND);
    expect(ledger.expectedUnits).toBe(SECOND * UNITS_PER_NS);
  });

  it('refuses negative numbers, and ticks of no period', () => {
    const ledger = programmed(1193);
    expect(() => ledger.deliver(-1n)).toThrow(RangeError);
    expect(() => ledger.forgive(-1n)).toThrow(RangeError);
    expect(() => ledger.owe(-1n)).toThrow(RangeError);
    expect(() => ledger.setTimeScale(0n, { numerator: 0n, denominator: 1n })).toThrow(RangeError);
    expect(() => new TickLedger(OPTIONS).deliver(1n)).toThrow(RangeError);
  });

  it('scales exactly, however finely the clock is read', () => {
    fc.assert(
      fc.property(
        fc.array(fc.bigInt(0n, 50_000_000n), { maxLength: 50 }),
        fc.bigInt(1n, 10_000_000n),
        (steps, numerator) => {
          const scale = { numerator, denominator: 1_000_000n };
          const ledger = programmed(1193);
          ledger.setTimeScale(0n, scale);
          let nowNs = 0n;
          for (const step of steps) ledger.advance((nowNs += step));
          expect(ledger.expectedUnits).toBe((nowNs * UNITS_PER_NS * numerator) / 1_000_000n);
        },
      ),
    );
  });

  it('is conserved in every history, and the same after state() and fromState()', () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant('advance' as const), ns: fc.bigInt(0n, SECOND) }),
      fc.record({ kind: fc.constant('deliver' as const), ticks: fc.bigInt(0n, 500n) }),
      fc.record({ kind: fc.constant('forgive' as const), ticks: fc.bigInt(0n, 50n) }),
      fc.record({
        kind: fc.constant('reprogram' as const),
        count: fc.integer({ min: 1, max: 65536 }),
        mode: fc.constantFrom(0, 2, 3, 4),
      }),
      fc.record({ kind: fc.constantFrom('freeze' as const, 'unfreeze' as const, 'move' as const) }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        let ledger = programmed(1193);
        let nowNs = 0n;
        // Counted apart: a second set of books.
        const books = { expected: 0n, delivered: 0n, forgiven: 0n, counting: true, frozen: false, count: 1193 };
        const worth = () => tickUnitsOf(books.count, MIN_PERIOD_NS);
        for (const each of operations) {
          switch (each.kind) {
            case 'advance':
              nowNs += each.ns;
              ledger.advance(nowNs);
              if (books.counting && !books.frozen) books.expected += each.ns * UNITS_PER_NS;
              break;
            case 'deliver':
              ledger.deliver(each.ticks);
              books.delivered += each.ticks * worth();
              break;
            case 'forgive':
              ledger.forgive(each.ticks);
              books.forgiven += each.ticks * worth();
              break;
            case 'reprogram':
              ledger.reprogram(nowNs, each.count, each.mode);
              books.counting = each.mode === 2 || each.mode === 3;
              if (books.counting) books.count = each.count;
              break;
            case 'freeze':
              ledger.freeze(nowNs);
              books.frozen = true;
              break;
            case 'unfreeze':
              ledger.unfreeze(nowNs);
              books.frozen = false;
              break;
            case 'move': {
              const saved = JSON.parse(JSON.stringify(ledger.state())) as LedgerState;
              const elsewhereNs = nowNs + 12_345n;
              ledger = TickLedger.fromState(saved, { ...OPTIONS, nowNs: elsewhereNs });
              nowNs = elsewhereNs;
              books.frozen = false;
            }
          }
          const owed = books.expected - books.delivered - books.forgiven;
          const soonNs = books.counting && !books.frozen ? 777n : 0n;
          expect(ledger.owedUnitsAt(nowNs + 777n, 3n)).toBe(owed + soonNs * UNITS_PER_NS - 3n * ledger.tickUnits);
          expect(ledger.owedUnits).toBe(owed);
          expect(ledger.owedTicks * worth() + ledger.owedRemainderUnits).toBe(owed);
          expect(ledger.expectedTicks - ledger.deliveredTicks - ledger.forgivenTicks).toBe(ledger.owedTicks);
        }
      }),
    );
  });

  it.each([
    ['a version that is not known', { version: 2 }, /version 2 is not known/],
    ['no version', {}, /version undefined is not known/],
    ['a number that is no text', { ...programmed(5).state(), expectedUnits: 7 }, /expectedUnits/],
    ['text that is no number', { ...programmed(5).state(), forgivenUnits: '1e3' }, /forgivenUnits/],
  ])('refuses %s', (_what, state, reason) => {
    expect(() => TickLedger.fromState(state as never, OPTIONS)).toThrow(reason);
  });
});

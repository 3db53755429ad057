/** The rate limit on what a guest can make us log: never more than its budget, and it says what it dropped. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from './clock.js';
import { RateLimit, silentLogger } from './logger.js';

describe('RateLimit', () => {
  it('lets a burst through, then nothing, then one for each refill', () => {
    const clock = new ManualClock();
    const limit = new RateLimit(clock, { burst: 3, refillNs: 100n });
    const dropped: number[] = [];
    const hit = () => limit.run((before) => dropped.push(before));
    for (let count = 0; count < 10; count++) hit();
    expect(dropped).toEqual([0, 0, 0]);
    clock.advance(99n);
    hit();
    expect(dropped).toHaveLength(3);
    clock.advance(1n);
    hit();
    expect(dropped).toEqual([0, 0, 0, 8]);
    clock.advance(100n);
    hit();
    expect(dropped[4]).toBe(0);
  });

  it('does not save up more than a burst over a long silence', () => {
    const clock = new ManualClock();
    const limit = new RateLimit(clock, { burst: 2, refillNs: 10n });
    clock.advance(1_000_000_000n);
    let emitted = 0;
    for (let count = 0; count < 100; count++) limit.run(() => emitted++);
    expect(emitted).toBe(2);
  });

  it('accounts for every call, and never passes burst + elapsed / refill', () => {
    const calls = fc.array(fc.bigInt({ min: 0n, max: 50n }), { maxLength: 200 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.bigInt({ min: 1n, max: 40n }), calls, (burst, refillNs, gaps) => {
        const clock = new ManualClock({ startNs: 12_345n });
        const limit = new RateLimit(clock, { burst, refillNs });
        let emitted = 0;
        let reportedDropped = 0;
        for (const gap of gaps) {
          clock.advance(gap);
          limit.run((before) => {
            emitted++;
            reportedDropped += before;
          });
        }
        const elapsed = clock.nowNs() - 12_345n;
        expect(emitted).toBeLessThanOrEqual(burst + Number(elapsed / refillNs));
        expect(emitted + reportedDropped).toBeLessThanOrEqual(gaps.length);
        // What is not reported yet comes with the next record.
        clock.advance(refillNs);
        limit.run((before) => {
          expect(emitted + reportedDropped + before).toBe(gaps.length);
        });
      }),
    );
  });
});

describe('silentLogger', () => {
  it('returns nothing, whatever it is given', () => {
    const log: (...args: never[]) => unknown = silentLogger.log;
    expect(Reflect.apply(log, silentLogger, ['error', 'message', { field: 1n }])).toBeUndefined();
  });
});

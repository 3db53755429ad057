import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { checkTrafficLimits, type TrafficLimits } from './budget.js';
import { Pacer } from './pacer.js';

const SECOND = 1_000_000_000n;

/** What is let through in `seconds` of somebody who always wants more, and when. */
function letThrough(limits: TrafficLimits, bytes: number, seconds: bigint): { count: number; atNs: bigint[] } {
  const clock = new ManualClock();
  const pacer = new Pacer(clock, limits);
  const atNs: bigint[] = [];
  const ask = (): void => {
    pacer.submit(bytes, () => {
      atNs.push(clock.nowNs());
      if (atNs.length < 100_000) clock.setTimer(1n, ask);
    });
  };
  for (let each = 0; each < 4; each++) ask();
  clock.advance(seconds * SECOND);
  return { count: atNs.length, atNs };
}

describe('a rate limit', () => {
  it.each<[string, TrafficLimits, number, number]>([
    ['operations', { operationsPerSecond: 500 }, 4096, 500],
    ['bytes', { bytesPerSecond: 4096 * 200 }, 4096, 200],
    ['the tighter of both', { operationsPerSecond: 500, bytesPerSecond: 4096 * 200 }, 4096, 200],
    ['the other one of both', { operationsPerSecond: 100, bytesPerSecond: 4096 * 200 }, 4096, 100],
    ['requests larger than the burst', { bytesPerSecond: 2 ** 20, bytesBurst: 4096 }, 2 ** 18, 4],
    ['less than one a second', { operationsPerSecond: 0.5 }, 4096, 0.5],
  ])('holds %s over time', (_what, limits, bytes, perSecond) => {
    const { count } = letThrough(limits, bytes, 20n);
    // Its burst comes on top, once.
    expect(count).toBeGreaterThanOrEqual(20 * perSecond - 1);
    expect(count).toBeLessThanOrEqual(20 * perSecond + Math.max(1, perSecond / 10) + 1);
  });

  it('lets a burst through at once after a rest, and no more', () => {
    const clock = new ManualClock();
    const pacer = new Pacer(clock, { operationsPerSecond: 10, operationsBurst: 5 });
    let through = 0;
    const ask = (count: number) => {
      for (let each = 0; each < count; each++) pacer.submit(1, () => through++);
    };
    ask(8);
    expect([through, pacer.waiting]).toEqual([5, 3]);
    clock.advance(10n * SECOND);
    ask(20);
    expect([through, pacer.waiting]).toEqual([8 + 5, 15]);
  });

  it('keeps the order, also of what is asked for from inside', () => {
    const clock = new ManualClock();
    const pacer = new Pacer(clock, { operationsPerSecond: 1000, operationsBurst: 1 });
    const order: number[] = [];
    for (let each = 0; each < 10; each++) {
      pacer.submit(1, () => {
        order.push(each);
        if (each < 5) pacer.submit(1, () => order.push(each + 10));
      });
    }
    clock.advance(SECOND);
    // The first passed at once, and asked before anybody else did.
    expect(order).toEqual([0, 10, ...Array.from({ length: 9 }, (_, index) => index + 1), 11, 12, 13, 14]);
  });

  it('lets a line through that is hurried, and makes up for it afterwards', () => {
    const clock = new ManualClock();
    const pacer = new Pacer(clock, { operationsPerSecond: 10, operationsBurst: 1 });
    let through = 0;
    const ask = (count: number) => {
      for (let each = 0; each < count; each++) pacer.submit(1, () => through++);
    };
    ask(50);
    pacer.hurry();
    expect([through, pacer.waiting]).toEqual([50, 0]);
    ask(1);
    clock.advance(4n * SECOND);
    expect(through).toBe(50);
    clock.advance(SECOND);
    expect(through).toBe(51);
  });

  it('is none without limits', () => {
    let through = 0;
    for (let each = 0; each < 5; each++) new Pacer(new ManualClock(), {}).submit(2 ** 40, () => through++);
    expect(through).toBe(5);
  });
});

it.each<[unknown, new () => Error]>([
  [{ operationsPerSecond: 0 }, RangeError],
  [{ operationsPerSecond: 1e-320 }, RangeError],
  [{ bytesPerSecond: -1 }, RangeError],
  [{ bytesPerSecond: Number.NaN }, RangeError],
  [{ bytesBurst: 10 }, RangeError],
  [{ bytesPerSecond: '10' }, TypeError],
  [{ bytePerSecond: 10 }, TypeError],
  [null, TypeError],
])('refuses %j', (limits, error) => {
  expect(() => checkTrafficLimits('limits', limits as TrafficLimits)).toThrow(error);
});

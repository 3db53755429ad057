/** The manual clock: timers fire in order, at their own time, and what they set during an advance still fires in it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hostClock, ManualClock } from './clock.js';

describe('ManualClock', () => {
  it('stands still until it is advanced', () => {
    const clock = new ManualClock({ startNs: 5n });
    expect(clock.nowNs()).toBe(5n);
    expect(clock.nowNs()).toBe(5n);
    clock.advance(10n);
    expect(clock.nowNs()).toBe(15n);
  });

  it('carries wall time along', () => {
    const clock = new ManualClock({ startNs: 7_000_000n, wallMs: 1_000 });
    expect(clock.wallMs()).toBe(1_000);
    clock.advance(2_500_000_000n);
    expect(clock.wallMs()).toBe(3_500);
  });

  it('shows a timer the time at which it was due, and leaves the rest for later', () => {
    const clock = new ManualClock();
    const seen: [string, bigint][] = [];
    clock.setTimer(30n, () => seen.push(['c', clock.nowNs()]));
    clock.setTimer(10n, () => seen.push(['a', clock.nowNs()]));
    clock.setTimer(20n, () => seen.push(['b', clock.nowNs()]));
    clock.advance(20n);
    expect(seen).toEqual([
      ['a', 10n],
      ['b', 20n],
    ]);
    clock.advance(9n);
    expect(seen).toHaveLength(2);
    clock.advance(1n);
    expect(seen[2]).toEqual(['c', 30n]);
  });

  it('fires timers of the same moment in the order in which they were set', () => {
    const clock = new ManualClock();
    const seen: number[] = [];
    for (const index of [0, 1, 2, 3]) clock.setTimer(5n, () => seen.push(index));
    clock.advance(5n);
    expect(seen).toEqual([0, 1, 2, 3]);
  });

  it('runs a periodic timer that sets itself again once for each period', () => {
    const clock = new ManualClock();
    let ticks = 0;
    const tick = () => {
      ticks++;
      clock.setTimer(10n, tick);
    };
    clock.setTimer(10n, tick);
    clock.advance(105n);
    expect(ticks).toBe(10);
  });

  it('does not fire what was cancelled, also from within another timer, and takes a second cancel', () => {
    const clock = new ManualClock();
    const seen: string[] = [];
    const late = clock.setTimer(20n, () => seen.push('late'));
    clock.setTimer(10n, () => late.cancel());
    late.cancel();
    clock.advance(100n);
    expect(seen).toEqual([]);
  });

  it('takes a negative delay as now, and fires it only in an advance', () => {
    const clock = new ManualClock();
    let fired = 0;
    clock.setTimer(-5n, () => fired++);
    expect(fired).toBe(0);
    clock.advance(0n);
    expect(fired).toBe(1);
    expect(clock.nowNs()).toBe(0n);
  });

  it('fires every timer once, in order, however the time is cut up', () => {
    const delays = fc.array(fc.bigInt({ min: 0n, max: 1000n }), { maxLength: 20 });
    const steps = fc.array(fc.bigInt({ min: 0n, max: 300n }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(delays, steps, (timers, advances) => {
        const clock = new ManualClock();
        const fired: bigint[] = [];
        for (const delay of timers) {
          clock.setTimer(delay, () => {
            expect(clock.nowNs()).toBe(delay);
            fired.push(delay);
          });
        }
        for (const step of advances) clock.advance(step);
        const end = advances.reduce((sum, step) => sum + step, 0n);
        expect(clock.nowNs()).toBe(end);
        expect(fired).toEqual(timers.filter((delay) => delay <= end).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)));
      }),
    );
  });
});

describe('hostClock', () => {
  it('never goes back', () => {
    let last = hostClock.nowNs();
    for (let sample = 0; sample < 1000; sample++) {
      const now = hostClock.nowNs();
      expect(now >= last).toBe(true);
      last = now;
    }
  });

  it('calls back not earlier than asked', async () => {
    // Something else must keep the process alive: the clock's timers do not.
    const keepAlive = setTimeout(() => undefined, 60_000);
    for (let sample = 0; sample < 20; sample++) {
      const startNs = hostClock.nowNs();
      const firedNs = await new Promise<bigint>((resolve) => {
        hostClock.setTimer(2_000_001n, () => resolve(hostClock.nowNs()));
      });
      expect(firedNs - startNs).toBeGreaterThanOrEqual(2_000_001n);
    }
    clearTimeout(keepAlive);
  });

  it('takes a delay that is longer than setTimeout can wait for', async () => {
    const keepAlive = setTimeout(() => undefined, 60_000);
    let fired = false;
    const timer = hostClock.setTimer(2n ** 31n * 1_000_000n, () => (fired = true));
    await new Promise<void>((resolve) => hostClock.setTimer(5_000_000n, resolve));
    clearTimeout(keepAlive);
    timer.cancel();
    expect(fired).toBe(false);
  });

  it('does not fire a cancelled timer', async () => {
    const keepAlive = setTimeout(() => undefined, 60_000);
    let fired = false;
    hostClock.setTimer(1n, () => (fired = true)).cancel();
    await new Promise<void>((resolve) => hostClock.setTimer(5_000_000n, resolve));
    clearTimeout(keepAlive);
    expect(fired).toBe(false);
  });
});

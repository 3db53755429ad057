import { expect, it } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { TurnQueue } from '../../base/turn-queue.js';
import { MachineThrottle } from './throttle.js';

const MS = 1_000_000n;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function rig(maxPauseMs?: number) {
  const clock = new ManualClock();
  const turns = new TurnQueue();
  let heldSinceNs: bigint | undefined;
  const seen = { heldNs: 0n, holds: 0, longestNs: 0n, isPaused: false };
  const machine = {
    turns,
    hold: async () => {
      await Promise.resolve();
      if (heldSinceNs !== undefined) throw new Error('held twice');
      if (seen.isPaused) return false;
      heldSinceNs = clock.nowNs();
      seen.holds++;
      return true;
    },
    letGo: async () => {
      await Promise.resolve();
      if (heldSinceNs === undefined) return;
      const ns = clock.nowNs() - heldSinceNs;
      heldSinceNs = undefined;
      seen.heldNs += ns;
      if (ns > seen.longestNs) seen.longestNs = ns;
    },
  };
  const pass = async (ms: number): Promise<void> => {
    for (let each = 0; each < ms; each++) {
      clock.advance(MS);
      await turn();
    }
  };
  return {
    clock,
    turns,
    seen,
    pass,
    machine,
    isHeld: () => heldSinceNs !== undefined,
    throttle: new MachineThrottle(machine, clock, maxPauseMs),
  };
}

it.each([0.5, 0.8, 0.95, 0.99])('holds the guest for a share of the time: %d', async (share) => {
  const { seen, pass, throttle, isHeld } = rig();
  await pass(100);
  expect(seen.holds).toBe(0);
  throttle.set(share);
  await pass(5000);
  await throttle.end();
  expect(Number(seen.heldNs) / 5e9).toBeCloseTo(share, 1);
  expect(isHeld()).toBe(false);
  const { holds } = seen;
  await pass(500);
  expect(seen.holds).toBe(holds);
});

it('holds it no longer at once than the stop that was promised', async () => {
  const { seen, pass, throttle } = rig(5);
  throttle.set(0.8);
  await pass(2000);
  await throttle.end();
  expect(seen.longestNs).toBeLessThanOrEqual(6n * MS);
  expect(Number(seen.heldNs) / 2e9).toBeGreaterThan(0.6);
});

it('ends in the middle of a hold, and comes between no other turns', async () => {
  const { turns, pass, throttle, isHeld } = rig();
  throttle.set(0.99);
  await pass(10);
  expect(isHeld()).toBe(true);
  let wasHeld: boolean | undefined;
  const other = turns.run(async () => {
    wasHeld = isHeld();
    await turn();
    expect(isHeld()).toBe(wasHeld);
  });
  await throttle.end();
  await other;
  expect(wasHeld).toBe(false);
  await throttle.end();
  throttle.set(0.5);
  await pass(500);
  expect(isHeld()).toBe(false);
});

it('keeps nobody waiting while the machine is paused', async () => {
  const { turns, pass, throttle, seen } = rig();
  seen.isPaused = true;
  throttle.set(0.99);
  await pass(10);
  // By itself, with no timer to fire.
  await turns.run(() => Promise.resolve());
  expect(seen.holds).toBe(0);
  seen.isPaused = false;
  await pass(300);
  expect(seen.holds).toBeGreaterThan(0);
  await throttle.end();
});

it('gives up where there is no guest any more', async () => {
  const { clock, machine } = rig();
  const hold = () => Promise.reject(new Error('the guest has ended'));
  const throttle = new MachineThrottle({ ...machine, hold }, clock, undefined);
  throttle.set(0.5);
  await turn();
  await expect(throttle.end()).resolves.toBeUndefined();
});

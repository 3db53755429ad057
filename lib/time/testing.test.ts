/** The simulated PIT keeps to what arch/x86/kvm/i8254.c does; the other tests of this room stand on it. */
import { describe, expect, it } from 'vitest';
import { SimulatedMachine } from './testing.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

async function programmed(count: number, reinject: boolean) {
  const sim = new SimulatedMachine();
  const { count: now, mode, latch } = sim.read();
  await sim.change({ expected: { count: now, mode, latch }, reinject, waitForTickNs: 0n });
  sim.program(count);
  return sim;
}

describe('SimulatedMachine', () => {
  it('fires at the floored period, which it never shortens below the minimum but for the first', async () => {
    const sim = await programmed(1193, false);
    await sim.run(SECOND);
    expect(sim.firedAtNs[1]! - sim.firedAtNs[0]!).toBe(999_848n);
    sim.firedAtNs.length = 0;
    const loadedNs = sim.clock.nowNs();
    sim.program(60);
    await sim.run(MS);
    expect(sim.firedAtNs[0]! - loadedNs).toBe(50_285n);
    expect(sim.firedAtNs[1]! - sim.firedAtNs[0]!).toBe(200_000n);
  });

  it('restarts the period with every load', async () => {
    const sim = await programmed(0, false);
    for (let each = 0; each < 50; each++) {
      sim.program(0);
      await sim.run(40n * MS);
    }
    expect(sim.guestTicks).toBe(0n);
  });

  it('coalesces without reinjection, and replays with it, until a load forgets the backlog', async () => {
    for (const [reinject, least, most] of [
      [false, 1n, 2n],
      [true, 495n, 505n],
    ] as const) {
      const sim = await programmed(1193, reinject);
      await sim.run(100n * MS);
      const before = sim.guestTicks;
      sim.pause(true);
      await sim.run(500n * MS);
      sim.pause(false);
      await sim.run(30n * MS);
      const gained = sim.guestTicks - before - 30n;
      expect(gained).toBeGreaterThanOrEqual(least - 1n);
      expect(gained).toBeLessThanOrEqual(most);
      sim.pause(true);
      await sim.run(500n * MS);
      sim.program(1193);
      const { guestTicks } = sim;
      sim.pause(false);
      await sim.run(30n * MS);
      expect(sim.guestTicks - guestTicks).toBeLessThanOrEqual(31n);
    }
  });

  it('fires once in mode 0, never in mode 5, and holds a masked tick', async () => {
    const sim = await programmed(1193, false);
    await sim.run(10n * MS);
    sim.program(1193, 0);
    await sim.run(100n * MS);
    expect(sim.guestSingleTicks).toBe(1n);
    sim.program(1193, 5);
    await sim.run(100n * MS);
    expect(sim.guestSingleTicks).toBe(1n);
    sim.program(1193);
    sim.mask(true);
    const before = sim.guestTicks;
    await sim.run(100n * MS);
    expect(sim.guestTicks).toBe(before);
    sim.mask(false);
    await sim.run(50_000n);
    expect(sim.guestTicks).toBe(before + 1n);
  });

  it('changes nothing where the guest came first, in mid-write, or where channel 2 is in use', async () => {
    const sim = await programmed(1193, false);
    const expected = { count: 1193, mode: 2, latch: 169 };
    const load = { count: 600, latch: 3 };
    sim.program(2000);
    expect(await sim.change({ expected, load, waitForTickNs: 0n })).toMatchObject({ result: 'changed' });
    sim.program(1193);
    sim.writeLowByte(169);
    expect(await sim.change({ expected, load, waitForTickNs: 0n })).toMatchObject({ result: 'changed' });
    sim.writeHighByte(4);
    sim.busyChanges = 1;
    expect(await sim.change({ expected, load, waitForTickNs: 0n })).toMatchObject({ result: 'busy' });
    expect(sim.read()).toMatchObject({ count: 1193 });
    expect(await sim.change({ expected, load, waitForTickNs: 0n })).toMatchObject({ result: 'applied' });
    expect(sim.read()).toEqual({ count: 600, mode: 2, latch: 3, midWrite: false });
  });

  it('expires by itself, once, unless a further change came first or the guest did', async () => {
    const sim = await programmed(1193, false);
    const outcomes: string[] = [];
    sim.onExpired = ({ result }) => outcomes.push(result);
    const own = { count: 1193, latch: 169 };
    const raise = (count: number, latch: number, afterNs: bigint) =>
      sim.change({
        expected: sim.read(),
        load: { count, latch },
        waitForTickNs: 0n,
        expiry: { afterNs, load: own },
      });
    await raise(600, 1, 50n * MS);
    await sim.run(60n * MS);
    expect(sim.read()).toMatchObject(own);
    await raise(600, 1, 50n * MS);
    await raise(500, 2, 80n * MS);
    await sim.run(60n * MS);
    expect(sim.read()).toMatchObject({ count: 500 });
    sim.program(700);
    await sim.run(60n * MS);
    expect(sim.read()).toMatchObject({ count: 700 });
    expect(outcomes).toEqual(['applied', 'changed']);
  });
});

/** The controller and a guest that programs the PIT itself, or a port that does not do as told. */
import { describe, expect, it } from 'vitest';
import { PIT_HZ } from './counts.js';
import { controlledGuest as guest } from './testing-controller.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

describe('a guest that reprograms', () => {
  it('is noticed within a control period, also when it loads the same value in catch-up', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    await sim.run(50n * MS);
    expect(controller.status().firingHz).toBeGreaterThan(3900);
    sim.program(1193);
    await sim.run(51n * MS);
    expect(controller.status()).toMatchObject({ reprograms: 2, phase: 'catch-up' });
    await sim.run(50n * MS);
    expect(controller.status().firingHz).toBeGreaterThan(3900);
  });

  it('is noticed when it loads the very count that the host fires with', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    await sim.run(50n * MS);
    const { count } = sim.read();
    sim.program(count);
    await sim.run(51n * MS);
    expect(controller.status()).toMatchObject({ reprograms: 2 });
    expect(controller.status().programmedHz).toBeCloseTo(PIT_HZ / count, 6);
    await controller.stop();
    expect(sim.read()).toEqual({ count, mode: 2, latch: count & 0xff, midWrite: false });
  });

  it('is noticed when it loads one byte that leaves the mark alone', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    await sim.run(50n * MS);
    sim.programLowByteOnly(250);
    await sim.run(51n * MS);
    expect(controller.status()).toMatchObject({ reprograms: 2 });
    expect(controller.status().programmedHz).toBeCloseTo(PIT_HZ / 250, 3);
  });

  it('stands down for one-shot modes and keeps what is owed', async () => {
    const { sim, controller, events, pause } = await guest();
    await pause(2000);
    await sim.run(100n * MS);
    sim.program(20_000, 0);
    await sim.run(51n * MS);
    const owed = controller.status().lagMs;
    expect(owed).toBeGreaterThan(1500);
    expect(controller.status()).toMatchObject({ phase: 'stand-down', standDownReason: 'one-shot', programmedHz: 0 });
    await sim.run(5n * SECOND);
    expect(controller.status().lagMs).toBe(owed);
    sim.program(1193);
    await sim.run(3n * SECOND);
    expect(controller.status()).toMatchObject({ phase: 'nominal', owed: 0 });
    expect(events).toEqual(['catch-up', 'reprogrammed', 'stand-down', 'reprogrammed', 'catch-up', 'nominal']);
  });

  it('costs one reading in two seconds while it keeps time otherwise', async () => {
    const { sim } = await guest();
    sim.program(20_000, 0);
    await sim.run(2n * SECOND);
    const before = { reads: sim.reads, conditionLooks: sim.conditionLooks };
    await sim.run(10n * SECOND);
    expect(sim.reads - before.reads).toBe(5);
    expect(sim.conditionLooks).toBe(before.conditionLooks);
  });

  it('is known as well after a long time without ticks as after a short one', async () => {
    const doubtMs = async (silentNs: bigint) => {
      const { sim, controller } = await guest();
      sim.program(20_000, 0);
      await sim.run(silentNs);
      const before = controller.status().uncertainMs;
      sim.program(1193);
      await sim.run(101n * MS);
      expect(controller.status().programmedHz).toBeCloseTo(1000, 0);
      return controller.status().uncertainMs - before;
    };
    const short = await doubtMs(2n * SECOND);
    expect(short).toBeGreaterThan(0);
    expect(await doubtMs(20n * SECOND)).toBeCloseTo(short, 3);
  });

  it('is not disturbed between the two bytes of a reload, nor between control word and reload', async () => {
    const { sim, controller, pause } = await guest();
    await pause(500);
    await sim.run(10n * MS);
    const loads = sim.loads;
    sim.writeLowByte(0x34);
    await sim.run(15n * MS);
    sim.writeHighByte(0x12);
    await sim.run(40n * MS);
    expect(controller.status().programmedHz).toBeCloseTo(PIT_HZ / 0x1234, 6);
    expect(sim.loads - loads).toBeLessThan(4);

    sim.writeControlWord(0);
    await sim.run(45n * MS);
    expect(controller.status().phase).toBe('stand-down');
    sim.writeLowByte(0);
    sim.writeHighByte(0);
    await sim.run(120n * MS);
    expect(controller.status()).toMatchObject({ phase: 'stand-down', standDownReason: 'one-shot' });
    expect(sim.read()).toMatchObject({ count: 65536, mode: 0 });
  });

  it('is left alone when it never stops, until it does', async () => {
    const { sim, controller } = await guest();
    for (let each = 0; each < 400; each++) {
      sim.program([1193, 1500, 1800][each % 3]!);
      await sim.run(10n * MS);
    }
    expect(controller.status().standDownReason).toBe('reprogrammed-too-often');
    await sim.run(3n * SECOND);
    const { phase, lagMs, firingHz } = controller.status();
    expect(phase).toBe('nominal');
    // It swings by a period between ticks, and by half a one its beginning is uncertain.
    expect(Math.abs(lagMs)).toBeLessThan(1500 / firingHz);
  });

  it.each([0, 1, 119])('may load %i: nothing piles up that nobody can pay', async (value) => {
    const { sim, controller } = await guest({ count: value, machine: { handlerNs: 5_000n } });
    await sim.run(5n * SECOND);
    const status = controller.status();
    expect(Math.abs(status.owed)).toBeLessThanOrEqual(2);
    expect(status).toMatchObject({ phase: 'nominal', episodes: 0, isClamped: value !== 0 });
    expect(status.nominalHz).toBeCloseTo(value === 0 ? 18.2 : 5000, 1);
    expect(sim.loads).toBe(0);
  });
});

describe('the port', () => {
  it('is asked again when it is busy', async () => {
    const { sim, controller, pause } = await guest();
    sim.busyChanges = 3;
    await pause(1000);
    await sim.run(50n * MS);
    expect(sim.loads).toBe(0);
    await sim.run(2n * SECOND);
    expect(controller.status()).toMatchObject({ phase: 'nominal', episodes: 1 });
    expect(controller.status().owed).toBeLessThanOrEqual(1);
  });

  it('that fails is left alone', async () => {
    const { sim, controller, pause } = await guest();
    sim.change = () => Promise.reject(new Error('EIO'));
    await pause(1000);
    await sim.run(SECOND);
    expect(controller.status()).toMatchObject({ phase: 'stand-down', standDownReason: 'port-failed' });
  });

  it('gets the guest’s own reload value back at the end, and is not touched after close', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    await sim.run(100n * MS);
    expect(sim.read().count).toBeLessThan(400);
    await controller.stop();
    expect(sim.read()).toEqual({ count: 1193, mode: 2, latch: 1193 & 0xff, midWrite: false });
    controller.close();
    controller.close();
    const { changes, reads } = sim;
    await sim.run(SECOND);
    expect(sim).toMatchObject({ changes, reads });
  });

  it('may close while a change is under way', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    controller.close();
    sim.close();
    await sim.run(200n * MS);
  });
});

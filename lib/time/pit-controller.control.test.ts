/** What users set and take from the controller: policies, time scale, feedback, saved state. */
import { describe, expect, it } from 'vitest';
import { PitController } from './pit-controller.js';
import { catchUpPolicy } from './catch-up-policy.js';
import { SimulatedMachine } from './testing.js';
import { controlledGuest as guest } from './testing-controller.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

describe('policies', () => {
  it('reinject leaves all to the kernel, which replays the backlog', async () => {
    const { sim, controller, pause, lagMs } = await guest({ pit: { policy: 'reinject' } });
    const before = lagMs();
    await pause(1000);
    await sim.run(500n * MS);
    expect(sim.reinject).toBe(true);
    expect(Math.abs(lagMs() - before)).toBeLessThan(2);
    expect(controller.status()).toMatchObject({ phase: 'nominal', episodes: 0, changes: 1 });
    expect(sim.loads).toBe(0);
  });

  it('discard forgives what was lost at once', async () => {
    const { sim, controller, pause, lagMs } = await guest({ pit: { policy: 'discard' } });
    const before = lagMs();
    await pause(1000);
    await sim.run(500n * MS);
    expect(lagMs() - before).toBeCloseTo(1000, -1);
    const status = controller.status();
    expect(status.forgiven).toBeGreaterThan(995);
    expect(status.owed).toBeLessThanOrEqual(1);
    expect(sim.loads).toBe(0);
  });

  it('of the user that throws is put aside, reported once, and replaced while the guest runs', async () => {
    const { sim, controller, pause, events, lagMs } = await guest();
    const before = lagMs();
    controller.setPolicy(() => {
      throw new Error('mine');
    });
    await sim.run(500n * MS);
    expect(events).toEqual(['policy-fault']);
    expect(controller.status()).toMatchObject({ policy: 'custom', policyFault: 'threw Error: mine', reinject: true });
    controller.setPolicy((input) => ({ ...catchUpPolicy(input), count: Number.NaN }));
    await sim.run(500n * MS);
    expect(events).toEqual(['policy-fault', 'policy-fault']);
    controller.setPolicy('catch-up');
    await pause(1000);
    await sim.run(SECOND);
    expect(controller.status()).toMatchObject({ policyFault: undefined, phase: 'nominal', reinject: false });
    expect(Math.abs(lagMs() - before)).toBeLessThan(2);
    expect(() => controller.setPolicy('wrong' as never)).toThrow(TypeError);
  });

  it('of the user decides in the middle of an episode of another', async () => {
    const { sim, controller, pause } = await guest();
    await pause(3000);
    await sim.run(200n * MS);
    const rates = new Set<number>();
    controller.setPolicy((input) => {
      const decision = catchUpPolicy({ ...input, storm: { limitHz: 1500, active: true } });
      if (decision.count !== undefined) rates.add(decision.count);
      return decision;
    });
    await sim.run(200n * MS);
    expect(controller.status().firingHz).toBeLessThan(1501);
    expect(Math.min(...rates)).toBeGreaterThan(790);
    controller.setPolicy('discard');
    await sim.run(100n * MS);
    expect(sim.read().count).toBe(1193);
    expect(controller.status().owed).toBeLessThanOrEqual(1);
  });

  it('do not disturb each other through listeners that throw', async () => {
    const { sim, controller, pause } = await guest();
    controller.on('catch-up', () => {
      throw new Error('listener');
    });
    let heard = 0;
    const remove = controller.on('catch-up', () => heard++);
    await pause(500);
    await sim.run(SECOND);
    remove();
    await pause(500);
    await sim.run(SECOND);
    expect(heard).toBe(1);
    expect(controller.status().episodes).toBe(2);
    expect(() => controller.on('nothing' as never, () => undefined)).toThrow(TypeError);
  });
});

describe('timeScale', () => {
  it.each([0.5, 2, 3.7])('%f runs the guest’s time at that factor, exactly counted, and back', async (factor) => {
    const { sim, controller } = await guest({ count: 4773 });
    controller.timeScale = factor;
    expect(controller.timeScale).toBe(factor);
    await sim.run(200n * MS);
    const start = { guest: sim.guestNs, host: sim.clock.nowNs() };
    await sim.run(10n * SECOND);
    const gained = Number(sim.guestNs - start.guest) / Number(sim.clock.nowNs() - start.host);
    expect(gained).toBeCloseTo(factor, 2);
    expect(Math.abs(controller.status().owed)).toBeLessThanOrEqual(3);
    controller.timeScale = 1;
    await sim.run(500n * MS);
    expect(sim.read()).toMatchObject({ count: 4773, latch: 4773 & 0xff });
    expect(controller.status()).toMatchObject({ phase: 'nominal', timeScale: 1, reprograms: 1 });
  });

  it('is caught up in virtual time', async () => {
    const { sim, controller, pause } = await guest({ count: 4773, pit: { timeScale: 2 } });
    await sim.run(500n * MS);
    const start = { guest: sim.guestNs, host: sim.clock.nowNs() };
    await pause(1000);
    await sim.run(4n * SECOND);
    expect(Number(sim.guestNs - start.guest) / Number(sim.clock.nowNs() - start.host)).toBeCloseTo(2, 2);
    expect(controller.status()).toMatchObject({ phase: 'nominal', episodes: 1 });
  });

  it('is refused beyond what can be fired of the programmed rate, naming the bounds', async () => {
    const { controller } = await guest({ count: 1193 });
    expect(() => (controller.timeScale = 6)).toThrow(/6 is not from 0.1 to 4.999: the guest programmed 1000.15/);
    expect(() => (controller.timeScale = 0)).toThrow(RangeError);
    expect(controller.timeScale).toBe(1);
    const slow = await guest({ count: 0 });
    expect(() => (slow.controller.timeScale = 0.2)).toThrow(/from 0.5 to 10/);
  });

  it('that was set for another rate is held within the bounds of the new one', async () => {
    const { sim, controller } = await guest({ count: 4773, pit: { timeScale: 10 } });
    expect(controller.timeScale).toBe(10);
    sim.program(1193);
    await sim.run(500n * MS);
    expect(controller.timeScale).toBeCloseTo(4.999, 3);
    sim.program(4773);
    await sim.run(200n * MS);
    expect(controller.timeScale).toBe(10);
  });
});

describe('feedback from guest memory', () => {
  it('measures by the guest’s own clock, and goes back to acknowledgements where there is none', async () => {
    const sim = new SimulatedMachine();
    let skew = 0;
    const readMemory = (gpa: number, length: number) => {
      if (gpa !== 0x46c) throw new RangeError('no memory there');
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setUint32(0, (Number(sim.guestTicks) + skew) % 0x1800b0, true);
      return bytes.slice(0, length);
    };
    const feedback = { gpa: 0x46c, widthBytes: 4, rateHz: 'programmed', wrapsAt: 0x1800b0 } as const;
    const controller = new PitController({ clock: sim.loop, port: sim, pit: { feedback }, readMemory });
    controller.start();
    sim.program(11932);
    await sim.run(SECOND);
    expect(controller.status()).toMatchObject({ feedback: 'guest-memory', phase: 'nominal', owed: 0 });
    // The guest has forgotten ten ticks that it acknowledged: they are paid back.
    skew = -10;
    await sim.run(3n * SECOND);
    expect(controller.status()).toMatchObject({ phase: 'nominal', feedbackJumps: 1 });

    const blind = new PitController({
      clock: sim.loop,
      port: sim,
      pit: { feedback: { ...feedback, gpa: 0 } },
      readMemory,
    });
    controller.close();
    blind.start();
    await sim.run(SECOND);
    expect(blind.status()).toMatchObject({ feedback: 'acknowledgements', feedbackFault: 'no memory there', owed: 0 });
    expect(() => new PitController({ clock: sim.loop, port: sim, pit: { feedback } })).toThrow(TypeError);
  });
});

describe('state', () => {
  it('goes on in another machine where it was, also out of the middle of an episode', async () => {
    const { sim, controller, pause } = await guest();
    await pause(3000);
    await sim.run(200n * MS);
    sim.pause(true);
    controller.pause({ clock: 'freeze' });
    const state = JSON.parse(JSON.stringify(controller.state())) as ReturnType<PitController['state']>;
    const lag = controller.status().lagMs;
    controller.close();

    const other = new SimulatedMachine();
    other.restore(sim);
    const resumed = new PitController({ clock: other.loop, port: other, state });
    resumed.passTime(SECOND, 'owed');
    expect(resumed.status().lagMs).toBeCloseTo(lag + 1000, 3);
    resumed.start();
    const before = { guest: other.guestNs, host: other.clock.nowNs() };
    await other.run(4n * SECOND);
    const gainedMs = Number(other.guestNs - before.guest - (other.clock.nowNs() - before.host)) / 1e6;
    expect(gainedMs).toBeGreaterThan(lag + 997);
    expect(gainedMs).toBeLessThan(lag + 1003);
    expect(resumed.status()).toMatchObject({ phase: 'nominal', reprograms: 1 });
    expect(other.read()).toEqual({ count: 1193, mode: 2, latch: 1193 & 0xff, midWrite: false });
  });

  it('of an unknown version is refused', () => {
    const sim = new SimulatedMachine();
    const state = { ...new PitController({ clock: sim.loop, port: sim }).state(), version: 3 };
    expect(() => new PitController({ clock: sim.loop, port: sim, state: state as never })).toThrow(/version 3/);
  });
});

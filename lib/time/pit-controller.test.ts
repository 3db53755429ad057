/** The controller's manners, one by one, on a simulated PIT and guest. Random histories: pit-controller.property.test.ts. */
import { describe, expect, it } from 'vitest';
import { PIT_HZ } from './counts.js';
import { PitController, type PitControllerOptions } from './pit-controller.js';
import type { PitEvents } from './pit-events.js';
import { catchUpPolicy } from './catch-up-policy.js';
import { SimulatedMachine, type SimulatedMachineOptions } from './testing.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;
const NAMES: (keyof PitEvents)[] = [
  'catch-up',
  'slow-down',
  'nominal',
  'storm',
  'reprogrammed',
  'gave-up',
  'stand-down',
  'policy-fault',
  'slow-down-refused',
];

async function guest(
  options: { count?: number; machine?: SimulatedMachineOptions } & Partial<PitControllerOptions> = {},
) {
  const sim = new SimulatedMachine(options.machine);
  const { count, machine: _machine, ...rest } = options;
  const controller = new PitController({ clock: sim.loop, port: sim, ...rest });
  const events: string[] = [];
  for (const name of NAMES) controller.on(name, () => events.push(name));
  controller.start();
  sim.program(count ?? 1193);
  await sim.run(500n * MS);
  events.length = 0;
  const pause = async (ms: number, clock: 'count' | 'freeze' = 'count') => {
    sim.pause(true);
    controller.pause({ clock });
    await sim.run(BigInt(ms) * MS);
    sim.pause(false);
    controller.resume();
  };
  /** Lag against the host since now, in ms, as the guest's own count has it. */
  const startNs = sim.clock.nowNs() - sim.guestNs;
  const lagMs = () => Number(sim.clock.nowNs() - startNs - sim.guestNs) / 1e6;
  return { sim, controller, events, pause, lagMs };
}

describe('PitController in the nominal phase', () => {
  it('looks ten times a second, with one reading, no load and no look at the masks', async () => {
    const { sim, controller, events } = await guest();
    const before = { reads: sim.reads, changes: sim.changes, maskLooks: sim.maskLooks };
    await sim.run(2000n * MS);
    const looks = sim.reads - before.reads;
    await sim.run(10n * SECOND);
    expect(sim.reads - before.reads - looks).toBe(100);
    expect(sim.changes).toBe(before.changes);
    expect(sim.maskLooks).toBe(before.maskLooks);
    expect(sim.loads).toBe(0);
    expect(events).toEqual([]);
    expect(controller.status()).toMatchObject({ phase: 'nominal', owed: 0, episodes: 0, reinject: false });
  });

  it('says in its status what the contract names, as numbers that agree', async () => {
    const { sim, controller } = await guest();
    const status = controller.status();
    for (const name of ['programmedHz', 'firingHz', 'expected', 'delivered', 'forgiven', 'owed', 'lagMs'] as const) {
      expect(typeof status[name]).toBe('number');
    }
    expect(status.programmedHz).toBeCloseTo(PIT_HZ / 1193, 9);
    expect(status.firingHz).toBeCloseTo(1000, 0);
    expect(status.delivered).toBe(Number(sim.guestTicks));
    expect(JSON.parse(JSON.stringify(status))).toMatchObject({ reprograms: 1, episodes: 0, storms: 0 });
  });
});

describe('PitController after a pause', () => {
  it.each([
    [0, 5000, 2000],
    [18643, 2000, 1000],
    [11932, 2000, 1000],
    [4773, 2000, 1000],
    [1193, 2000, 2000],
    [1193, 10_000, 4000],
  ])('pays back %i: %i ms within %i ms, to within a tick of the programmed period', async (count, stopMs, withinMs) => {
    const { sim, controller, events, pause, lagMs } = await guest({ count });
    const before = lagMs();
    await pause(stopMs);
    expect(controller.status().phase).toBe('catch-up');
    await sim.run(BigInt(withinMs) * MS);
    const tickMs = ((count || 65536) / PIT_HZ) * 1000;
    expect(Math.abs(lagMs() - before)).toBeLessThan(2 * tickMs);
    const status = controller.status();
    expect(Math.abs(status.owed)).toBeLessThanOrEqual(1);
    expect(status).toMatchObject({ phase: 'nominal', episodes: 1, forgiven: 0 });
    expect(status.causes.paused.ms).toBeGreaterThan(stopMs * 0.99 - 2 * tickMs);
    expect(events).toEqual(['catch-up', 'nominal']);
  });

  it('owes nothing for a pause with a frozen clock', async () => {
    const { sim, controller, events, pause, lagMs } = await guest();
    await pause(3000, 'freeze');
    await sim.run(SECOND);
    expect(events).toEqual([]);
    expect(lagMs()).toBeGreaterThan(2998);
    for (const { ticks } of Object.values(controller.status().causes)) expect(ticks).toBe(0);
  });

  it('gives up more than giveUpMs, forgives it and says so', async () => {
    const { sim, controller, pause } = await guest({ pit: { giveUpMs: 1500 } });
    const gaveUp: PitEvents['gave-up'][] = [];
    controller.on('gave-up', (event) => gaveUp.push(event));
    await pause(2000);
    await sim.run(SECOND);
    expect(gaveUp).toHaveLength(1);
    expect(gaveUp[0]!.forgivenMs).toBeCloseTo(2000, -1);
    const status = controller.status();
    expect(status).toMatchObject({ phase: 'nominal', episodes: 0, forgiven: gaveUp[0]!.forgiven });
    expect(status.owed).toBe(status.expected - status.delivered - status.forgiven);
  });

  it('adds a gap that the clock has not shown', async () => {
    const { sim, controller, lagMs } = await guest();
    const before = lagMs();
    controller.owe(SECOND);
    await sim.run(2n * SECOND);
    expect(lagMs() - before).toBeCloseTo(-1000, -1);
    expect(controller.status()).toMatchObject({ phase: 'nominal', episodes: 1 });
  });
});

describe('loss has causes', () => {
  it('tells masking, starvation and a guest that does not acknowledge apart', async () => {
    const masked = await guest();
    masked.sim.mask(true);
    await masked.sim.run(500n * MS);
    masked.sim.mask(false);
    await masked.sim.run(SECOND);
    expect(masked.controller.status().causes.masked.ms).toBeGreaterThan(450);

    const starved = await guest({ machine: { halts: false } });
    starved.sim.starve(true);
    await starved.sim.run(500n * MS);
    starved.sim.starve(false);
    await starved.sim.run(SECOND);
    expect(starved.controller.status().causes.notRunning.ms).toBeGreaterThan(450);

    const slow = await guest({ machine: { halts: false } });
    slow.sim.handlerNs = 3n * MS;
    await slow.sim.run(500n * MS);
    expect(slow.controller.status().causes.notAcknowledged.ms).toBeGreaterThan(200);
  });
});

describe('a guest that does not keep up', () => {
  it('is given a bounded rate, keeps time for its own work, and is still caught up', async () => {
    // A handler of 400 us: the guest can take 2500 a second, and then does nothing else.
    const { sim, controller, events, pause } = await guest({ machine: { halts: false } });
    sim.handlerNs = 400_000n;
    await pause(3000);
    await sim.run(SECOND);
    expect(controller.status().storms).toBeGreaterThan(0);
    expect(events).toContain('storm');
    const before = { ticks: sim.guestTicks, ns: sim.clock.nowNs() };
    await sim.run(2n * SECOND);
    const share = (Number(sim.guestTicks - before.ticks) * 400_000) / Number(sim.clock.nowNs() - before.ns);
    expect(share).toBeLessThan(0.95);
    await sim.run(8n * SECOND);
    expect(controller.status()).toMatchObject({ phase: 'nominal' });
    expect(Math.abs(controller.status().owed)).toBeLessThanOrEqual(2);
  });
});

describe('a source that counts nothing', () => {
  it('is found out, left to the kernel, and never caught up on', async () => {
    const { sim, controller } = await guest({ machine: { acknowledgementsHidden: true, halts: false } });
    await sim.run(500n * MS);
    expect(controller.status()).toMatchObject({
      phase: 'stand-down',
      standDownReason: 'source-unavailable',
      source: 'unavailable',
      reinject: true,
      episodes: 0,
    });
    expect(sim.loads).toBe(0);
    // Reinjection lets KVM see the acknowledgements again; it is believed for a while, and found out again.
    await sim.run(60n * SECOND);
    expect(controller.status()).toMatchObject({ episodes: 0, source: 'unavailable' });
    expect(sim.guestNs - sim.clock.nowNs()).toBeLessThan(0n);
  });

  it('costs a guest that closes its interrupts for a moment nothing but that moment', async () => {
    const { sim, controller, lagMs } = await guest({ machine: { halts: false } });
    const before = lagMs();
    sim.starve(true);
    await sim.run(3n * SECOND);
    sim.starve(false);
    await sim.run(3n * SECOND);
    expect(controller.status()).toMatchObject({ source: 'alive', phase: 'nominal' });
    expect(Math.abs(lagMs() - before)).toBeLessThan(3);
  });
});

describe('a guest that reprograms', () => {
  it('is noticed within a control period, also when it loads the same value in catch-up', async () => {
    const { sim, controller, pause } = await guest();
    await pause(2000);
    await sim.run(50n * MS);
    expect(controller.status().firingHz).toBeGreaterThan(3900);
    sim.program(1193);
    await sim.run(20n * MS);
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
    await sim.run(40n * MS);
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
    await sim.run(50n * MS);
    expect(controller.status()).toMatchObject({ reprograms: 2 });
    expect(controller.status().programmedHz).toBeCloseTo(PIT_HZ / 250, 3);
  });

  it('stands down for one-shot modes and keeps what is owed', async () => {
    const { sim, controller, events, pause } = await guest();
    await pause(2000);
    await sim.run(100n * MS);
    sim.program(20_000, 0);
    await sim.run(30n * MS);
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

  it('costs one reading a look while it keeps time otherwise', async () => {
    const { sim } = await guest();
    sim.program(20_000, 0);
    await sim.run(2n * SECOND);
    const before = { reads: sim.reads, conditionLooks: sim.conditionLooks };
    await sim.run(10n * SECOND);
    expect(sim.reads - before.reads).toBe(100);
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
      sim.program(each % 2 === 0 ? 1193 : 1500);
      await sim.run(10n * MS);
    }
    expect(controller.status().standDownReason).toBe('reprogrammed-too-often');
    await sim.run(3n * SECOND);
    expect(controller.status().phase).toBe('nominal');
    expect(Math.abs(controller.status().owed)).toBeLessThanOrEqual(1);
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

describe('a control period missed by seconds', () => {
  it('finds what is true then, natively put back to nominal in the meantime', async () => {
    const { sim, controller, pause, lagMs } = await guest();
    const before = lagMs();
    await pause(4000);
    await sim.run(30n * MS);
    sim.loop.stall();
    await sim.run(3n * SECOND);
    expect(sim.read().count).toBe(1193);
    expect(lagMs() - before).toBeGreaterThan(3000);
    sim.loop.resume();
    await sim.run(3n * SECOND);
    expect(Math.abs(lagMs() - before)).toBeLessThan(2);
    expect(controller.status()).toMatchObject({ phase: 'nominal', reprograms: 1, unseenReprograms: 0 });
  });
});

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
    resumed.owe(SECOND);
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

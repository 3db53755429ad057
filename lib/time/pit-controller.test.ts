/** The controller and a guest that loses ticks. Random histories: pit-controller.property.test.ts. */
import { describe, expect, it } from 'vitest';
import { tickChannel, type TickProbe } from '../base/probes.js';
import { probed, toldNobody } from '../base/testing-probes.js';
import { PIT_HZ } from './counts.js';
import type { PitEvents } from './pit-events.js';
import { controlledGuest as guest } from './testing-controller.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

describe('PitController in the nominal phase', () => {
  it('looks once in two seconds, with one reading, no load and no look at the masks; native code ten times', async () => {
    const { sim, controller, events } = await guest();
    const before = { changes: sim.changes, maskLooks: sim.maskLooks };
    await sim.run(2000n * MS);
    const { reads, watchLooks } = sim;
    await sim.run(10n * SECOND);
    expect(sim.reads - reads).toBe(5);
    // One in twenty coincides with a look of JavaScript's, which stands in for it.
    expect(sim.watchLooks - watchLooks).toBe(95);
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

describe('PitController under a probe', () => {
  it('tells each decision, and makes nothing for nobody', async () => {
    const { sim, controller, pause } = await guest({ machineName: 'box' });
    expect(await toldNobody(tickChannel, () => pause(100))).toBe(0);
    await sim.run(2n * SECOND);
    let firingHz = 0;
    const seen = await probed<TickProbe>(tickChannel, async () => {
      await pause(1000);
      await sim.run(100n * MS);
      ({ firingHz } = controller.status());
      await sim.run(2n * SECOND);
    });
    const raised = seen.filter(({ phase }) => phase === 'catch-up');
    expect(raised[0]).toMatchObject({ machine: 'box', owed: expect.closeTo(1000, -1) });
    expect(raised.map((each) => each.firingHz)).toContain(firingHz);
    expect(firingHz).toBeGreaterThan(1500);
    expect(seen.at(-1)).toMatchObject({ machine: 'box', phase: 'nominal' });
    expect(seen.at(-1)!.firingHz).toBeCloseTo(1000, 0);
  });

  it('tells that there is nothing to decide', async () => {
    const { sim } = await guest();
    const seen = await probed<TickProbe>(tickChannel, async () => {
      sim.program(4000, 0);
      await sim.run(500n * MS);
    });
    expect(seen.at(-1)).toMatchObject({ machine: undefined, phase: 'stand-down', firingHz: 0 });
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
    controller.passTime(SECOND, 'owed');
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

  it('is not blamed while it idles: a busy host fires late, and slower firing would not help', async () => {
    const { sim, controller, pause } = await guest({ count: 4773 });
    await pause(5000);
    for (let turn = 0; turn < 260; turn++) {
      sim.starve(true);
      await sim.run(6n * MS);
      sim.starve(false);
      await sim.run(17n * MS);
    }
    expect(controller.status()).toMatchObject({ storms: 0, stormLimitHz: undefined });
    expect(controller.status().lagMs).toBeLessThan(200);
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

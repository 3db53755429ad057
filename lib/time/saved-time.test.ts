/** Conservation of a guest's time over save and restore: nothing is owed twice and nothing is lost, at whatever moment. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PitController } from './pit-controller.js';
import { loadTime, saveTime } from './saved-time.js';
import { SimulatedMachine } from './testing.js';

const MS = 1_000_000n;
const SECOND = 1000n * MS;

type Step = { readonly kind: 'run' | 'pause' | 'mask'; readonly ms: number };

const steps = fc.array(fc.record({ kind: fc.constantFrom('run', 'pause', 'mask'), ms: fc.nat(700) }), { maxLength: 5 });

async function act(sim: SimulatedMachine, controller: PitController, { kind, ms }: Step): Promise<void> {
  if (kind === 'run') return sim.run(BigInt(ms) * MS);
  if (kind === 'mask') {
    sim.mask(true);
    await sim.run(BigInt(ms) * MS);
    return sim.mask(false);
  }
  sim.pause(true);
  controller.pause({ clock: 'count' });
  await sim.run(BigInt(ms) * MS);
  sim.pause(false);
  controller.resume();
}

/** Stops a machine as a snapshot does, and goes on in another one, whose clock stands elsewhere. */
async function moved(sim: SimulatedMachine, controller: PitController) {
  sim.pause(true);
  controller.pause({ clock: 'freeze' });
  const settled = controller.settled();
  // What is under way may wait for a tick, as long as 100 ms.
  await sim.run(150n * MS);
  await settled;
  const before = controller.status();
  const saved = loadTime(structuredClone(saveTime(controller)));
  controller.close();
  sim.close();
  const other = new SimulatedMachine();
  other.restore(sim);
  const { own } = saved.controller;
  // Channel 0 gets the guest's own count, whatever rate was fired.
  if (sim.read().count !== own.count) other.program(own.count === 65536 ? 0 : own.count, own.mode);
  const resumed = new PitController({ clock: other.loop, port: other, state: saved.controller });
  return { other, resumed, before, saved };
}

async function untilPaid(sim: SimulatedMachine, controller: PitController): Promise<void> {
  await sim.run(300n * MS);
  for (let second = 0; second < 100; second++) {
    // The change back to the guest's own count may wait for a tick, as long as 100 ms.
    if (controller.status().phase === 'nominal') return sim.run(150n * MS);
    await sim.run(SECOND);
  }
  throw new Error(`the episode does not end: ${JSON.stringify(controller.status())}`);
}

describe('a guest’s time over save and restore', () => {
  it('is conserved at every moment: owed as before, then paid once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1193, 4773, 11932, 18643, 0),
        steps,
        steps,
        fc.constantFrom('freeze', 'catch-up', 'step'),
        fc.nat(1500),
        async (count, first, second, mode, gapMs) => {
          const sim = new SimulatedMachine();
          const controller = new PitController({ clock: sim.loop, port: sim });
          controller.start();
          sim.program(count);
          await sim.run(500n * MS);
          const hostStartNs = sim.clock.nowNs();
          const guestStartNs = sim.guestNs;
          for (const step of first) await act(sim, controller, step);
          const hostFirstNs = sim.clock.nowNs() - hostStartNs;
          const { other, resumed, before } = await moved(sim, controller);
          const gapNs = BigInt(gapMs) * MS;
          if (mode !== 'freeze') resumed.passTime(gapNs, mode === 'step' ? 'forgiven' : 'owed');

          const after = resumed.status();
          expect(after.expected).toBe(after.delivered + after.forgiven + after.owed);
          const tickMs = (count || 65536) / 1193.182;
          const wantedMs = before.lagMs + (mode === 'catch-up' ? gapMs : mode === 'step' ? gapMs % tickMs : 0);
          expect(Math.abs(after.lagMs - wantedMs)).toBeLessThan(0.001);
          expect(after.delivered).toBe(before.delivered);

          resumed.start();
          const otherStartNs = other.clock.nowNs();
          for (const step of second) await act(other, resumed, step);
          await untilPaid(other, resumed);
          const hostNs = hostFirstNs + other.clock.nowNs() - otherStartNs + (mode === 'catch-up' ? gapNs : 0n);
          const guestNs = sim.guestNs - guestStartNs + other.guestNs;
          expect(Math.abs(Number(hostNs - guestNs))).toBeLessThanOrEqual(tickMs * 4e6 + 5e6);
          expect(other.read()).toMatchObject({ count: count || 65536, latch: count & 0xff });
          resumed.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('owes nothing to a guest that takes no ticks', async () => {
    const sim = new SimulatedMachine();
    const controller = new PitController({ clock: sim.loop, port: sim });
    controller.start();
    sim.program(1193, 0);
    await sim.run(200n * MS);
    const { resumed } = await moved(sim, controller);
    resumed.passTime(10n * SECOND, 'owed');
    expect(resumed.status()).toMatchObject({ owed: 0, phase: 'stand-down' });
    resumed.close();
  });

  it('gives up what is more than it will pay, by its own rule', async () => {
    const sim = new SimulatedMachine();
    const controller = new PitController({ clock: sim.loop, port: sim });
    controller.start();
    sim.program(1193);
    await sim.run(500n * MS);
    const { other, resumed } = await moved(sim, controller);
    const gaveUp: number[] = [];
    resumed.on('gave-up', ({ forgivenMs }) => gaveUp.push(forgivenMs));
    resumed.passTime(3600n * SECOND, 'owed');
    resumed.start();
    await other.run(500n * MS);
    expect(gaveUp).toHaveLength(1);
    expect(gaveUp[0]).toBeGreaterThan(3_500_000);
    resumed.close();
  });

  it('goes on between the two bytes of a reload', async () => {
    const sim = new SimulatedMachine();
    const controller = new PitController({ clock: sim.loop, port: sim });
    controller.start();
    sim.program(1193);
    await sim.run(500n * MS);
    sim.writeControlWord(2);
    sim.writeLowByte(0x12);
    const { other, resumed } = await moved(sim, controller);
    other.writeControlWord(2);
    other.writeLowByte(0x12);
    resumed.start();
    await other.run(100n * MS);
    expect(resumed.status()).toMatchObject({ reprograms: 1 });
    other.writeHighByte(0x12);
    await other.run(500n * MS);
    expect(resumed.status()).toMatchObject({ reprograms: 2, phase: 'nominal' });
    resumed.close();
  });

  it('is refused when it is not what it says', () => {
    const sim = new SimulatedMachine();
    const part = saveTime(new PitController({ clock: sim.loop, port: sim }));
    expect(() => loadTime({ ...part, version: 2 })).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT_VERSION' }));
    const { controller } = part.data as { controller: { ledger: object } };
    for (const ledger of [
      { ...controller.ledger, expectedUnits: '1e9' },
      { ...controller.ledger, timeScale: ['1', '0'] },
      { ...controller.ledger, timeScale: ['-1', '1'] },
      { ...controller.ledger, more: 1 },
    ]) {
      const data = { policy: 'catch-up', controller: { ...controller, ledger } };
      expect(() => loadTime({ ...part, data })).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT' }));
    }
  });
});

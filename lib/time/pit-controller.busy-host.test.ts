/**
 * The controller on a host that takes its CPUs away from guests time and again: ticks are lost in the same share at every
 * rate. That is no storm of the controller's making, and must not keep the guest from being caught up.
 */
import { describe, expect, it } from 'vitest';
import { controlledGuest as guest } from './testing-controller.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

type Guest = Awaited<ReturnType<typeof guest>>;
type Trouble = (sim: Guest['sim'], on: boolean) => void;

/** The CPU is gone for `lostMs` of every `ofMs`. */
async function troubled({ sim }: Guest, trouble: Trouble, [lostMs, ofMs]: [bigint, bigint], seconds: bigint) {
  for (let passed = 0n; passed < seconds * SECOND; passed += ofMs * MS) {
    trouble(sim, true);
    await sim.run(lostMs * MS, MS);
    trouble(sim, false);
    await sim.run((ofMs - lostMs) * MS, MS);
  }
}

const starved: Trouble = (sim, on) => sim.starve(on);
/** Nothing tells of it: the host's own CPU is gone, and the vCPU's thread seems to have run. */
const robbed: Trouble = (sim, on) => sim.rob(on);

describe.each([
  ['starved', starved],
  ['robbed', robbed],
])('a guest that is %s of its CPU time and again', (_, trouble) => {
  it.each<[bigint, bigint]>([
    [1n, 10n],
    [2n, 10n],
    [3n, 10n],
    [6n, 60n],
    [12n, 60n],
    [18n, 60n],
  ])('is caught up after a stop though it lacks %i ms of every %i', async (...lost) => {
    const subject = await guest({ machine: { halts: false } });
    const { pause, controller, lagMs } = subject;
    await troubled(subject, trouble, lost, 2n);
    const before = lagMs();
    await pause(2000);
    await troubled(subject, trouble, lost, 12n);
    expect(lagMs() - before).toBeLessThan(200);
    await subject.sim.run(2n * SECOND);
    expect(controller.status()).toMatchObject({ phase: 'nominal', forgiven: 0 });
    expect(lagMs()).toBeLessThan(3);
  });

  it('is still spared rates that swamp it', async () => {
    // A handler of 500 us: no more than 2000 a second, and then nothing else.
    const subject = await guest({ machine: { halts: false } });
    const { sim, pause, controller } = subject;
    sim.handlerNs = 500_000n;
    await troubled(subject, trouble, [1n, 10n], 2n);
    await pause(2000);
    await troubled(subject, trouble, [1n, 10n], 2n);
    expect(controller.status().storms).toBeGreaterThan(0);
    const fired = sim.firedAtNs.length;
    await troubled(subject, trouble, [1n, 10n], 15n);
    // The bound rises until it is found to be too high again.
    expect((sim.firedAtNs.length - fired) / 15).toBeLessThan(2000);
    expect(controller.status().lagMs).toBeLessThan(200);
  });

  it('is back to bounds that hold for a calm host when the trouble is over', async () => {
    const subject = await guest({ machine: { halts: false } });
    const { sim, controller, pause } = subject;
    sim.handlerNs = 400_000n;
    await troubled(subject, trouble, [6n, 10n], 4n);
    await pause(9000);
    await sim.run(6n * SECOND);
    // Found swamped at an eighth more than it can take.
    expect(controller.status().stormLimitHz).toBeLessThan(2500 * 1.13);
  });
});

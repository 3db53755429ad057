/** The controller while native code looks in its place: nothing is seen later, or told otherwise, than by its own looks. */
import { describe, expect, it } from 'vitest';
import { catchUpPolicy } from './catch-up-policy.js';
import { controlledGuest as guest } from './testing-controller.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;

/** A guest that has been calm for so long that JavaScript looks every two seconds, somewhere between two of its looks. */
async function calmGuest(options: Parameters<typeof guest>[0] = {}) {
  const world = await guest(options);
  await world.sim.run(4n * SECOND + 470n * MS);
  return world;
}

describe('a calm guest that is watched by native code', () => {
  it('is caught up within a control period of its loss', async () => {
    const { sim, controller, events, lagMs } = await calmGuest();
    sim.starve(true);
    await sim.run(60n * MS);
    sim.starve(false);
    await sim.run(101n * MS);
    expect(events).toContain('catch-up');
    await sim.run(400n * MS);
    expect(controller.status().phase).toBe('nominal');
    expect(Math.abs(lagMs())).toBeLessThan(2);
  });

  it.each([
    ['another rate', 4000, 2],
    ['a one-shot', 4000, 0],
  ])('is seen to program %s within a control period', async (_what, count, mode) => {
    const { sim, events } = await calmGuest();
    sim.program(count, mode);
    await sim.run(101n * MS);
    expect(events).toContain('reprogrammed');
  });

  it('has its losses explained by the time of the loss alone', async () => {
    const { sim, controller } = await calmGuest({ machine: { halts: false } });
    sim.starve(true);
    await sim.run(60n * MS);
    sim.starve(false);
    await sim.run(SECOND);
    const { causes } = controller.status();
    expect(causes.notRunning.ticks).toBeGreaterThanOrEqual(58);
    expect(causes.notAcknowledged.ticks + causes.masked.ticks).toBeLessThanOrEqual(1);
  });

  it('is found to mask its line, when it does', async () => {
    const { sim, controller, lagMs } = await calmGuest();
    sim.mask(true);
    await sim.run(500n * MS);
    sim.mask(false);
    await sim.run(SECOND);
    expect(Math.abs(lagMs())).toBeLessThan(2);
    // In the window in which the mask goes nobody sees it any more.
    expect(controller.status().causes.masked.ticks).toBeGreaterThan(400);
  });

  it('is looked at anew after a stalled event loop, whatever it did meanwhile', async () => {
    const { sim, controller, lagMs } = await calmGuest();
    sim.loop.stall();
    sim.starve(true);
    await sim.run(500n * MS);
    sim.starve(false);
    await sim.run(5n * SECOND);
    sim.loop.resume();
    await sim.run(2n * SECOND);
    expect(controller.status().phase).toBe('nominal');
    expect(Math.abs(lagMs())).toBeLessThan(2);
  });

  it('is left to JavaScript by a policy of the user’s, which may see more in it', async () => {
    const { sim } = await calmGuest({ pit: { policy: (input) => catchUpPolicy(input) } });
    const { reads, watchLooks } = sim;
    await sim.run(10n * SECOND);
    expect({ reads: sim.reads - reads, watchLooks: sim.watchLooks - watchLooks }).toEqual({
      reads: 100,
      watchLooks: 0,
    });
  });

  it('is looked at by JavaScript alone from the moment that a policy of the user’s is set', async () => {
    const { sim, controller } = await calmGuest();
    controller.setPolicy((input) => catchUpPolicy(input));
    const { watchLooks } = sim;
    await sim.run(2n * SECOND);
    expect(sim.watchLooks).toBe(watchLooks);
  });

  it('is no more looked at when the machine pauses, and when its controller is closed', async () => {
    const { sim, controller } = await calmGuest();
    controller.pause();
    const { watchLooks } = sim;
    await sim.run(SECOND);
    expect(sim.watchLooks).toBe(watchLooks);
    controller.resume();
    await sim.run(2n * SECOND);
    expect(sim.watchLooks).toBeGreaterThan(watchLooks);
    const reads = sim.reads;
    controller.close();
    sim.starve(true);
    await sim.run(2n * SECOND);
    expect(sim.reads).toBe(reads);
  });
});

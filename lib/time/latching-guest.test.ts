/**
 * What a guest sees that latches the counter while its PIT is steered, with the arithmetic of Linux's i8253 clocksource
 * (drivers/clocksource/i8253.c): jiffies * LATCH + (LATCH - 1 - count), a count that rises within a jiffy held, and a count over
 * LATCH taken for broken hardware, which is reloaded.
 */
import { describe, expect, it } from 'vitest';
import { PIT_HZ } from './counts.js';
import { PitController } from './pit-controller.js';
import { SimulatedMachine } from './testing.js';

const MS = 1_000_000n;
const LATCH = 4773;

class LinuxClocksource {
  reloads = 0;
  #oldCount = 0;
  #oldJiffies = -1n;
  readonly #sim: SimulatedMachine;

  constructor(sim: SimulatedMachine) {
    this.#sim = sim;
  }

  read(): number {
    const jiffies = this.#sim.guestTicks;
    let count = this.#sim.latchedCount();
    if (count > LATCH) {
      this.#sim.program(LATCH);
      this.reloads++;
      count = LATCH - 1;
    }
    if (count > this.#oldCount && jiffies === this.#oldJiffies) count = this.#oldCount;
    this.#oldCount = count;
    this.#oldJiffies = jiffies;
    return Number(jiffies) * LATCH + (LATCH - 1 - count);
  }
}

async function latchingGuest() {
  const sim = new SimulatedMachine({ handlerNs: 10_000n });
  const controller = new PitController({ clock: sim.loop, port: sim });
  const events: string[] = [];
  for (const name of ['slow-down', 'slow-down-refused', 'catch-up', 'nominal'] as const) {
    controller.on(name, () => events.push(name));
  }
  controller.start();
  sim.program(LATCH);
  await sim.run(500n * MS);
  return { sim, controller, events, clocksource: new LinuxClocksource(sim) };
}

/** A policy of a user's own fires at twice the rate for a second, then the default takes over. */
async function getAhead(sim: SimulatedMachine, controller: PitController): Promise<void> {
  controller.setPolicy(() => ({ phase: 'nominal', count: 2387, reinject: false, expiryNs: 100n * MS }));
  await sim.run(1000n * MS);
  controller.setPolicy('catch-up');
}

describe('a guest that latches all the time', () => {
  it('sees a monotonic clock in catch-up, at most one tick ahead of its ticks, and never a broken PIT', async () => {
    const { sim, controller, clocksource } = await latchingGuest();
    sim.pause(true);
    controller.pause();
    await sim.run(2000n * MS);
    sim.pause(false);
    controller.resume();
    let last = clocksource.read();
    let backwards = 0;
    for (let step = 0; step < 60_000; step++) {
      await sim.run(37_000n, 37_000n);
      const now = clocksource.read();
      if (now < last) backwards++;
      last = now;
      const ahead = now - Number(sim.guestTicks) * LATCH;
      expect(ahead).toBeGreaterThanOrEqual(-1);
      expect(ahead).toBeLessThan(LATCH);
    }
    expect(backwards).toBe(0);
    expect(clocksource.reloads).toBe(0);
    expect(controller.status()).toMatchObject({ phase: 'nominal', episodes: 1, reprograms: 1 });
    // The guest's clock and the host's agree again.
    expect(Math.abs(controller.status().owed)).toBeLessThanOrEqual(1);
  });

  it('takes a slowed PIT for a broken one; after two reloads a lead is left alone', async () => {
    const { sim, controller, events, clocksource } = await latchingGuest();
    await getAhead(sim, controller);
    const ticks = sim.guestTicks;
    for (let step = 0; step < 20_000; step++) {
      await sim.run(100_000n, 100_000n);
      clocksource.read();
    }
    expect(clocksource.reloads).toBeGreaterThanOrEqual(2);
    expect(events.filter((name) => name === 'slow-down-refused')).toHaveLength(1);
    const { reloads } = clocksource;
    expect(controller.status()).toMatchObject({ slowDown: 'refused', phase: 'nominal' });
    // From now on it runs at its own rate and is not touched: never stepped back.
    const { loads } = sim;
    for (let step = 0; step < 10_000; step++) {
      await sim.run(100_000n, 100_000n);
      clocksource.read();
    }
    expect(clocksource.reloads).toBe(reloads);
    expect(sim.loads).toBe(loads);
    expect(Number(sim.guestTicks - ticks) / 3).toBeGreaterThan((PIT_HZ / LATCH) * 0.98);
  });
});

describe('a guest that does not latch', () => {
  it('is slowed down when it is ahead, until it is not, and never stepped back', async () => {
    const { sim, controller, events } = await latchingGuest();
    await getAhead(sim, controller);
    expect(controller.status().owed).toBeLessThan(-200);
    let last = sim.guestTicks;
    for (let step = 0; step < 300; step++) {
      await sim.run(10n * MS);
      expect(sim.guestTicks).toBeGreaterThanOrEqual(last);
      last = sim.guestTicks;
    }
    expect(events.slice(-2)).toEqual(['slow-down', 'nominal']);
    expect(Math.abs(controller.status().owed)).toBeLessThanOrEqual(2);
    expect(sim.read()).toMatchObject({ count: LATCH, latch: LATCH & 0xff });
  });
});

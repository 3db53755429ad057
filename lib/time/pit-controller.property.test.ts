/**
 * The controller on a simulated PIT and guest, in random histories of disturbances: the books stay conserved against what the
 * guest counted for itself, the cap holds, every episode ends, and the guest's own reload value comes back exactly.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PitController } from './pit-controller.js';
import type { PitOptions } from './configuration.js';
import { SimulatedMachine, type SimulatedMachineOptions } from './testing.js';

const MS = 1_000_000n;
const CYCLE = 1_000_000_000n;
const absolute = (value: bigint) => (value < 0n ? -value : value);

type Action =
  | { readonly kind: 'run' | 'mask' | 'starve' | 'stall' | 'pause' | 'freeze'; readonly ms: number }
  | { readonly kind: 'handler'; readonly us: number }
  | { readonly kind: 'program'; readonly count: number; readonly mode: number; readonly ms: number };

const quiet = fc.oneof(
  fc.record({ kind: fc.constantFrom('run', 'mask', 'starve', 'stall', 'pause', 'freeze'), ms: fc.nat(400) }),
  fc.record({ kind: fc.constant('handler'), us: fc.constantFrom(5, 20, 100, 400, 900) }),
) as fc.Arbitrary<Action>;

const programming = (modes: number[]) =>
  fc.record({
    kind: fc.constant('program'),
    count: fc.oneof(fc.constantFrom(0, 298, 1193, 4773, 11932, 18643), fc.integer({ min: 298, max: 65535 })),
    mode: fc.constantFrom(...modes),
    ms: fc.nat(60),
  }) as fc.Arbitrary<Action>;

const count = fc.constantFrom(298, 1193, 4773, 11932, 18643, 0);

function machine(options?: SimulatedMachineOptions, pit: PitOptions = {}) {
  const sim = new SimulatedMachine(options);
  const controller = new PitController({ clock: sim.loop, port: sim, pit });
  controller.start();
  return { sim, controller };
}

async function act(sim: SimulatedMachine, controller: PitController, action: Action): Promise<void> {
  switch (action.kind) {
    case 'handler':
      sim.handlerNs = BigInt(action.us) * 1000n;
      return;
    case 'program':
      sim.program(action.count, action.mode);
      return sim.run(BigInt(action.ms) * MS);
    case 'run':
      return sim.run(BigInt(action.ms) * MS);
    case 'mask':
      sim.mask(true);
      await sim.run(BigInt(action.ms) * MS);
      return sim.mask(false);
    case 'starve':
      sim.starve(true);
      await sim.run(BigInt(action.ms) * MS);
      return sim.starve(false);
    case 'stall':
      sim.loop.stall();
      await sim.run(BigInt(action.ms) * MS * 5n);
      return sim.loop.resume();
    case 'pause':
    case 'freeze':
      sim.pause(true);
      controller.pause({ clock: action.kind === 'freeze' ? 'freeze' : 'count' });
      await sim.run(BigInt(action.ms) * MS * 2n);
      sim.pause(false);
      controller.resume();
  }
}

/**
 * Runs until nothing is owed any more; throws when that takes longer than any table allows. A 4000 Hz guest gains only one part in six,
 * so ten seconds of pauses take it a minute.
 */
async function settle(sim: SimulatedMachine, controller: PitController): Promise<void> {
  sim.handlerNs = 20_000n;
  await sim.run(300n * MS);
  for (let second = 0; second < 200; second++) {
    const { phase } = controller.status();
    if (phase === 'nominal' || phase === 'stand-down') return;
    await sim.run(1000n * MS);
  }
  throw new Error(`the episode does not end: ${JSON.stringify(controller.status())}`);
}

const ledgerOf = (controller: PitController) => {
  const { deliveredUnits, uncertainUnits, deliveredTicks } = controller.state().ledger;
  return {
    deliveredUnits: BigInt(deliveredUnits),
    uncertainUnits: BigInt(uncertainUnits),
    deliveredTicks: BigInt(deliveredTicks),
  };
};

function worstIn100Ms(timesNs: readonly bigint[]): number {
  let worst = 0;
  let first = 0;
  for (let last = 0; last < timesNs.length; last++) {
    while (timesNs[last]! - timesNs[first]! >= 100n * MS) first++;
    worst = Math.max(worst, last - first + 1);
  }
  return worst;
}

describe('a guest that keeps its rate', () => {
  it('is brought back to the host time that passed, exactly counted, under the cap, with its own reload value', async () => {
    await fc.assert(
      fc.asyncProperty(count, fc.array(quiet, { maxLength: 8 }), async (programmed, actions) => {
        const { sim, controller } = machine();
        sim.program(programmed);
        const own = sim.read();
        await sim.run(500n * MS);
        let frozenNs = 0n;
        const startNs = sim.clock.nowNs();
        const startGuestNs = sim.guestNs;
        for (const action of actions) {
          if (action.kind === 'freeze') frozenNs += BigInt(action.ms) * MS * 2n;
          await act(sim, controller, action);
        }
        await settle(sim, controller);

        const tickNs = (BigInt(programmed || 65536) * CYCLE) / 1_193_182n;
        const lagNs = sim.clock.nowNs() - startNs - frozenNs - (sim.guestNs - startGuestNs);
        // A 4000 Hz guest is caught up by one part in six, and may still be at it when its handler was slow.
        expect(Number(absolute(lagNs))).toBeLessThanOrEqual(Number(tickNs * 3n + 5n * MS));

        const { deliveredUnits, uncertainUnits } = ledgerOf(controller);
        expect(uncertainUnits).toBeLessThanOrEqual(4n * 65536n * CYCLE + 120n * MS * 1_193_182n);
        expect(deliveredUnits).toBe(sim.guestCycles * CYCLE);
        const status = controller.status();
        expect(status.delivered).toBe(Number(sim.guestTicks));
        expect(status.owed).toBe(status.expected - status.delivered - status.forgiven);

        const cap = Math.max(status.maxRateHz, status.nominalHz);
        expect(worstIn100Ms(sim.firedAtNs)).toBeLessThanOrEqual(Math.ceil(cap / 10) + 1);
        expect(worstIn100Ms(sim.takenAtNs)).toBeLessThanOrEqual(Math.ceil(cap / 10) + 3);

        await sim.run(200n * MS);
        await controller.stop();
        expect(sim.read()).toEqual(own);
        expect(status.policyFault).toBeUndefined();
        controller.close();
        sim.close();
      }),
      { numRuns: 60 },
    );
  });

  it('never sees more than the cap that was configured', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1000, max: 4900 }),
        fc.array(quiet, { minLength: 2, maxLength: 6 }),
        async (maxRateHz, actions) => {
          const { sim, controller } = machine({}, { maxRateHz });
          sim.program(1193);
          await sim.run(300n * MS);
          for (const action of actions) await act(sim, controller, action);
          await sim.run(500n * MS);
          expect(worstIn100Ms(sim.firedAtNs)).toBeLessThanOrEqual(Math.ceil(Math.max(maxRateHz, 1001) / 10) + 1);
          controller.close();
          sim.close();
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe('a guest that reprograms at any moment', () => {
  it.each([
    ['periodic modes', [2, 3]],
    ['all modes', [2, 3, 2, 3, 0, 4]],
  ])('stays within the stated bound of what it counted for itself: %s', async (_what, modes) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(quiet, programming(modes)), { minLength: 2, maxLength: 12 }),
        async (actions) => {
          const { sim, controller } = machine();
          sim.program(1193);
          await sim.run(300n * MS);
          for (const action of actions) await act(sim, controller, action);
          await settle(sim, controller);
          await sim.run(200n * MS);
          const status = controller.status();
          const { deliveredUnits, uncertainUnits } = ledgerOf(controller);
          const error = absolute(deliveredUnits - sim.guestCycles * CYCLE);
          expect(Number(error)).toBeLessThanOrEqual(Number(uncertainUnits));
          expect(status.owed).toBe(status.expected - status.delivered - status.forgiven);
          const last = actions.filter((action) => action.kind === 'program').at(-1) ?? { count: 1193, mode: 2 };
          await controller.stop();
          const { count, mode } = last;
          expect(sim.read()).toEqual({ count: count || 65536, mode, latch: count & 0xff, midWrite: false });
          controller.close();
          sim.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('keeps what is owed, to within a few ticks, when it changes its rate once in catch-up', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1193, 4773, 11932),
        fc.constantFrom(298, 1193, 4773, 11932),
        fc.bigInt(0n, 300_000_000n),
        async (before, after, whenNs) => {
          const { sim, controller } = machine();
          sim.program(before);
          await sim.run(400n * MS);
          const startNs = sim.clock.nowNs();
          const startGuestNs = sim.guestNs;
          await act(sim, controller, { kind: 'pause', ms: 500 });
          await sim.run(whenNs);
          sim.program(after);
          await settle(sim, controller);
          await sim.run(3000n * MS);
          await settle(sim, controller);
          if (before !== after) expect(controller.status().reprograms).toBe(2);
          const lagNs = sim.clock.nowNs() - startNs - (sim.guestNs - startGuestNs);
          const tickNs = (BigInt(before + after) * CYCLE) / 1_193_182n;
          // Where the raised rate is that of the new programming, nobody can tell which of a window's ticks were which.
          const unknowableNs = Math.abs(before / 4 / after - 1) < 0.05 ? 100n * MS : 0n;
          expect(Number(absolute(lagNs))).toBeLessThanOrEqual(Number(3n * tickNs + 5n * MS + unknowableNs));
          controller.close();
          sim.close();
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('a stalled event loop', () => {
  it('lets no guest get ahead, since native code ends every raised rate', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(298, 1193, 4773, 11932, 0),
        fc.integer({ min: 50, max: 3000 }),
        fc.bigInt(0n, 400_000_000n),
        async (programmed, lostMs, whenNs) => {
          const { sim, controller } = machine();
          sim.program(programmed);
          await sim.run(500n * MS);
          const base = sim.guestNs - sim.clock.nowNs();
          sim.pause(true);
          controller.pause();
          await sim.run(BigInt(lostMs) * MS);
          sim.pause(false);
          controller.resume();
          await sim.run(whenNs);
          sim.loop.stall();
          const tickNs = (BigInt(programmed || 65536) * CYCLE) / 1_193_182n;
          for (let step = 0; step < 300; step++) {
            await sim.run(10n * MS);
            expect(Number(sim.guestNs - sim.clock.nowNs() - base)).toBeLessThanOrEqual(Number(2n * tickNs));
          }
          expect(sim.read().count).toBe(programmed || 65536);
          sim.loop.resume();
          await settle(sim, controller);
          expect(controller.status().reprograms).toBe(1);
          controller.close();
          sim.close();
        },
      ),
      { numRuns: 25 },
    );
  });
});

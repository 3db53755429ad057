/** What the tests of the controller share: a simulated guest that is looked after. */
import { PitController, type PitControllerOptions } from './pit-controller.js';
import type { PitEvents } from './pit-events.js';
import { SimulatedMachine, type SimulatedMachineOptions } from './testing.js';

const MS = 1_000_000n;

/** Every event that a test may wait for. */
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

/** A guest of the simulated PIT under a controller, half a second old, and what happened since. */
export async function controlledGuest(
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
  /** Stops the machine for so long. */
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

/**
 * Machines for the tests of the kvm group: made from an assembled guest, closed when the test ends, whatever happens.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { Machine, type MachineOptions } from '../../lib/machine/index.js';
import { assemble } from './assemble.js';

export interface GuestOptions extends Omit<MachineOptions, 'boot'> {
  readonly mode?: 'real16' | 'protected32' | 'long64';
  readonly address?: number;
  readonly defines?: Record<string, number>;
}

/** A machine with the guest `test/guests/NAME.S`, not started. */
export async function makeGuest(name: string, options: GuestOptions = {}): Promise<Machine> {
  const { mode = 'real16', address = mode === 'long64' ? 0x10000 : 0x1000, defines = {}, ...rest } = options;
  const machine = await Machine.create({
    memory: '16MiB',
    debugExit: true,
    ...rest,
    boot: { flat: assemble(name, address, defines), address, mode },
  });
  onTestFinished(() => machine.close());
  return machine;
}

/** The same, running. */
export async function startGuest(name: string, options: GuestOptions = {}): Promise<Machine> {
  const machine = await makeGuest(name, options);
  await machine.start();
  return machine;
}

/** A 64-bit word of guest memory. */
export function readU64(machine: Machine, gpa: number): bigint {
  const bytes = machine.memory.read(gpa, 8);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

/** Resolves when `condition` holds; it is looked at once a turn of the event loop. The test's own timeout bounds it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** The same for guests that want a CPU of their own: looked at seldom, so that the looking leaves it to them. */
export async function untilCalmly(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(20);
}

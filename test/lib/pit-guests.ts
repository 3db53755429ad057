/** What the tests of the PIT's steering share: guests of a few bytes, and wishes for changes. */
import { readdirSync, readFileSync } from 'node:fs';
import type { KvmPitState2 } from '../../lib/abi/kvm-structs.js';
import type { PitChange, PitOutcome, PitReading } from '../../lib/kvm/index.js';
import type { PitRig } from './pit-rig.js';

// What the guests keep in memory.
export const TICKS = 0x600;
export const ACKED = 0x604;

export const SPIN = [0xeb, 0xfe];
export const HALT = [0xf4, 0xeb, 0xfd];
// in al, 0xc0; out 0xc1, al; jmp back
export const ECHO = [0xe4, 0xc0, 0xe6, 0xc1, 0xeb, 0xfa];
// inc dword [0x600]; jmp back
export const COUNT_UP = [0x66, 0xff, 0x06, 0x00, 0x06, 0xeb, 0xf9];

/** More than a guest can load, so that it is the host's for certain. */
export const HOST = { count: 70_000, latch: 0x5a };
/** The time that a count of 65536 takes, in ns rounded down. */
export const LONGEST_COUNT_NS = 54_925_401n;

export const expecting = ({ count, mode, latch }: PitReading): PitChange['expected'] => ({ count, mode, latch });
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The change, again while a vCPU has not come out in time. */
export async function change(pit: PitRig['pit'], wish: PitChange): Promise<PitOutcome> {
  for (;;) {
    const outcome = await pit.change(wish);
    if (outcome.result !== 'busy') return outcome;
  }
}

/** The kernel's ids of this process's threads with that name. */
export function threadsNamed(name: string): number[] {
  const tasks = readdirSync('/proc/self/task');
  return tasks.filter((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim() === name).map(Number);
}

/** Loads channel 0 with what it holds already. */
export function reload({ pit }: PitRig): Promise<PitOutcome> {
  const reading = pit.read();
  const { count, latch } = reading;
  return change(pit, { expected: expecting(reading), load: { count, latch }, waitForTickNs: 0n });
}

/** Sets channels by hand; the rest as it is. */
export function setChannels({ vm }: PitRig, fields: Partial<KvmPitState2['channels'][number]>[]): void {
  const state = vm.getPit();
  vm.setPit({ ...state, channels: state.channels.map((channel, index) => ({ ...channel, ...fields[index] })) });
}

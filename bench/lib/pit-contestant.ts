/**
 * Machines whose guest's time is measured: vivarium's under a policy, and QEMU's under a policy for lost ticks. All run the
 * same bytes (pit-guest.ts) and are looked at the same way: the guest's own counters, read out of its memory from outside.
 */
import { Machine, type PolicyName } from '#lib/index.js';
import { tickingBoot, tickingGuest, TICKING_MEMORY, TICKS_AT, WORK_AT } from './pit-guest.js';
import { startQemuPeer } from './qemu-peer.js';

export interface Contestant {
  /** Ticks that the guest has taken. */
  ticks(): number;
  /** Turns of the guest's own work, modulo 2^32. */
  work(): number;
  /** The interrupts a second that are promised at most; infinite where nothing is. */
  capHz(): number;
  pause(): Promise<void>;
  resume(): Promise<void>;
  close(): Promise<void>;
}

export type StartContestant = (rateHz: number) => Promise<Contestant>;

export const CONTESTANTS = {
  catchUp: (rateHz) => startVivarium(rateHz, 'catch-up'),
  reinject: (rateHz) => startVivarium(rateHz, 'reinject'),
  qemuDelay: (rateHz) => startQemu(rateHz, 'delay'),
  qemuDiscard: (rateHz) => startQemu(rateHz, 'discard'),
} as const satisfies Record<string, StartContestant>;

export type ContestantName = keyof typeof CONTESTANTS;

async function startVivarium(rateHz: number, policy: PolicyName): Promise<Contestant> {
  const vm = await Machine.create({
    memory: TICKING_MEMORY,
    boot: tickingBoot(rateHz),
    pit: { policy },
  });
  await vm.start();
  const read = (gpa: number) => Buffer.from(vm.memory.read(gpa, 4)).readUInt32LE();
  return {
    ticks: () => read(TICKS_AT),
    work: () => read(WORK_AT),
    capHz: () => (policy === 'catch-up' ? vm.pit.status().maxRateHz : Number.POSITIVE_INFINITY),
    pause: () => vm.pause(),
    resume: () => vm.resume(),
    close: () => vm.close(),
  };
}

async function startQemu(rateHz: number, lostTickPolicy: 'delay' | 'discard'): Promise<Contestant> {
  const peer = await startQemuPeer(tickingGuest(rateHz), [`kvm-pit.lost_tick_policy=${lostTickPolicy}`]);
  return {
    ticks: () => peer.readU32(TICKS_AT),
    work: () => peer.readU32(WORK_AT),
    capHz: () => Number.POSITIVE_INFINITY,
    pause: () => peer.execute('stop'),
    resume: () => peer.execute('cont'),
    close: () => peer.close(),
  };
}

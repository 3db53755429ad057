/** The clocks of a restored board in each mode, and what becomes of ticks: the snapshot is made to look old by its host's date. */
import { describe, expect, it } from 'vitest';
import { Msr } from '../../lib/abi/x86.js';
import type { SavedPart } from '../../lib/base/saved-state.js';
import { BoardRig } from '../lib/board-rig.js';
import { until, untilCalmly } from '../lib/machine.js';

const ACKED = 0x604;
const COUNT = 4773;
const SECOND = 1_000_000_000n;

interface ClockData {
  clockNs: bigint;
  realtimeNs: bigint;
}
const part = (whole: SavedPart, name: string): SavedPart => (whole.data as Record<string, SavedPart>)[name]!;
const clockOf = (whole: SavedPart): ClockData => part(whole, 'clock').data as ClockData;

/** As if it had been saved so long ago. */
function aged(whole: SavedPart, seconds: bigint): SavedPart {
  const old = structuredClone(whole);
  clockOf(old).realtimeNs -= seconds * SECOND;
  return old;
}

const dateMs = (rig: BoardRig): number => Date.parse((rig.board.chipset.rtc.inspect() as { date: string }).date);

async function tickingGuest(): Promise<BoardRig> {
  const rig = await BoardRig.make({ guest: 'pit-halts', defines: { COUNT, PIN: 255 } });
  rig.run();
  await untilCalmly(() => rig.u32(ACKED) > 20);
  await rig.pause();
  return rig;
}

describe('a board that is restored later', () => {
  it.each([
    ['freeze', 0n],
    ['step', 600n],
    ['catch-up', 600n],
  ] as const)('%s: its clocks agree with each other', async (mode, seconds) => {
    const source = await tickingGuest();
    const savedMs = dateMs(source);
    const saved = aged(source.save(), 600n);
    const before = source.time.status();
    const target = await source.clone(saved, mode);
    const wentOnNs = target.board.vm.getClock().clock - clockOf(saved).clockNs;
    // However slow the host is, it is not five minutes off.
    expect(Number(wentOnNs / SECOND) - Number(seconds)).toBeGreaterThanOrEqual(0);
    expect(Number(wentOnNs / SECOND) - Number(seconds)).toBeLessThan(300);
    expect(dateMs(target) - savedMs).toBeGreaterThan(Number(seconds) * 1000 - 1);
    expect(dateMs(target) - savedMs).toBeLessThan((Number(seconds) + 300) * 1000);
    const { forgiven, owed, delivered } = target.time.status();
    const gapTicks = (Number(target.restored!.time.passedNs) * 1193.182e-6) / COUNT;
    expect(delivered).toBe(before.delivered);
    expect(forgiven - before.forgiven).toBe(mode === 'step' ? Math.floor(gapTicks) : 0);
    if (mode === 'catch-up') expect(owed).toBeGreaterThanOrEqual(Math.floor(gapTicks) + before.owed - 1);
    if (mode === 'freeze') expect(gapTicks).toBe(0);
  });

  it('catch-up: takes the ticks of the time between, each once, also over a further move in the middle', async () => {
    const source = await tickingGuest();
    let rig = await source.clone(aged(source.save(), 4n), 'catch-up');
    const firstOwed = rig.time.status().owed;
    expect(firstOwed).toBeGreaterThan(990);
    rig.run();
    await untilCalmly(() => rig.time.status().phase === 'catch-up' && rig.board.pit.read().count < COUNT);
    await rig.pause();
    const before = rig.time.status();
    const saved = rig.save();
    const next = await rig.clone(saved);
    // Whatever was fired, the guest's own count is what is kept.
    expect(next.board.pit.read()).toMatchObject({ count: COUNT, latch: COUNT & 0xff });
    expect(next.time.status()).toMatchObject({ delivered: before.delivered, forgiven: before.forgiven });
    await rig.close();
    rig = next;
    rig.run();
    await untilCalmly(() => rig.time.status().phase === 'nominal');
    await rig.pause();
    const { delivered, expected, forgiven, owed } = rig.time.status();
    // Parked in its handler, it may have ended the interrupt and not counted that yet.
    expect(delivered - rig.u32(ACKED)).toBeOneOf([0, 1]);
    expect(forgiven).toBe(0);
    expect(expected).toBe(delivered + owed);
  });

  it('step: a guest with kvmclock reads the time that passed, on its first look', async () => {
    const source = await BoardRig.make({ guest: 'kvmclock' });
    source.run();
    await until(() => source.u32(0x21000) > 100);
    await source.pause();
    const saved = aged(source.save(), 600n);
    const target = await source.clone(saved, 'step');
    const at = target.u32(0x21000);
    target.run();
    await until(() => target.u32(0x21000) > at + 10);
    // struct pvclock_vcpu_time_info: system_time at 16.
    expect(target.u64(0x20010)).toBeGreaterThanOrEqual(clockOf(saved).clockNs + 600n * SECOND);
    await target.pause();
    for (const vcpu of target.board.vcpus) expect(() => vcpu.kvmclockControl()).not.toThrow();
  });

  it.each([
    ['step', 600n],
    ['freeze', 0n],
  ] as const)('%s: a guest that asks is told what was stolen from it', async (mode, seconds) => {
    const at = 0x22000;
    const source = await BoardRig.make({ guest: 'kvmclock' });
    source.run();
    await until(() => source.u32(0x21000) > 100);
    await source.pause();
    source.board.vcpus[0]!.writeMsrs([{ index: Msr.KVM_STEAL_TIME, value: BigInt(at) | 1n }]);
    const before = source.u64(at);
    const target = await source.clone(aged(source.save(), 600n), mode);
    const count = target.u32(0x21000);
    target.run();
    await until(() => target.u32(0x21000) > count + 10);
    await target.pause();
    const stolen = target.u64(at) - before;
    expect(stolen / SECOND).toBeGreaterThanOrEqual(seconds);
    expect(stolen / SECOND).toBeLessThan(seconds + 300n);
    // struct kvm_steal_time: version at 8, even when KVM is done.
    expect(target.u32(at + 8) % 2).toBe(0);
  });

  it('keeps the TSCs of its CPUs together', async () => {
    const source = await BoardRig.make({ guest: 'smp-count', cpus: 2 });
    source.run();
    await until(() => source.u32(0x20010) > 100);
    await source.pause();
    const target = await source.clone(aged(source.save(), 600n), 'step');
    const [first, second] = target.board.vcpus.map((vcpu) => vcpu.getTscOffset());
    expect(second).toBe(first);
  });
});

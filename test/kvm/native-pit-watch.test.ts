/** The watch of native code's over a PIT that nothing happens to: what it finds, what ends it, and its silence afterwards. */
import { describe, expect, it } from 'vitest';
import { loadBinding } from '../../lib/kvm/binding.js';
import type { PitCalm } from '../../lib/kvm/index.js';
import { kernelPeriodNs } from '../../lib/time/counts.js';
import { assemble } from '../lib/assemble.js';
import { expecting, HOST, setChannels, turn } from '../lib/pit-guests.js';
import { bootPit, type PitRig } from '../lib/pit-rig.js';

const MS = 1_000_000n;
const SECOND = 1_000_000_000n;
const COUNT = 4773;

/** A guest that takes the ticks of channel 0 at 250 Hz, and has taken some. */
async function tickingGuest(): Promise<PitRig & { readonly stirs: () => number }> {
  const rig = await bootPit(assemble('pit-ticks', 0x1000, { COUNT, STOP: 0, PIN: 255 }));
  let stirs = 0;
  rig.pit.onStirred = () => stirs++;
  rig.cpu.vcpu.resume();
  while (rig.pit.delivered() < 3n) await turn();
  return { ...rig, stirs: () => stirs };
}

/** What `pit` shows now, with bounds that no test host breaks by chance. */
function calm(pit: PitRig['pit'], wish: Partial<PitCalm> = {}): PitCalm {
  return {
    expected: expecting(pit.read()),
    periodNs: kernelPeriodNs(COUNT, pit.minPeriodNs),
    sinceNs: process.hrtime.bigint(),
    delivered: pit.delivered(),
    behindNs: 3600n * SECOND,
    aheadNs: 3600n * SECOND,
    intervalNs: 2n * MS,
    ...wish,
  };
}

async function forNs(ns: bigint): Promise<void> {
  const untilNs = process.hrtime.bigint() + ns;
  while (process.hrtime.bigint() < untilNs) await turn();
}

describe('a watch', () => {
  it('looks again and again, and says at what moment it has last found nothing', async () => {
    const { pit, stirs } = await tickingGuest();
    const startNs = process.hrtime.bigint();
    const before = pit.delivered();
    pit.watch(calm(pit));
    let last = { atNs: startNs, delivered: before, vcpuCpuNs: [0n] as readonly bigint[] };
    for (let looks = 0; looks < 5;) {
      await turn();
      const look = pit.takeLook();
      if (!look) continue;
      looks++;
      expect(look.atNs > last.atNs && look.atNs <= process.hrtime.bigint()).toBe(true);
      expect(look.delivered >= last.delivered && look.delivered <= pit.delivered()).toBe(true);
      expect(look.vcpuCpuNs).toHaveLength(1);
      expect(look.vcpuCpuNs[0]! >= last.vcpuCpuNs[0]!).toBe(true);
      last = look;
    }
    expect(stirs()).toBe(0);
  });

  it.each<[string, (rig: PitRig) => unknown, Partial<PitCalm>]>([
    ['the guest lags', ({ cpu }) => cpu.vcpu.park(), { behindNs: 50n * MS }],
    ['the guest is ahead', () => undefined, { periodNs: 20n * SECOND, aheadNs: 40n * SECOND }],
    ['a tick comes where none is expected', () => undefined, { periodNs: 0n }],
    ['channel 0 holds another count', (rig) => setChannels(rig, [{ count: 5000 }]), {}],
    ['channel 0 holds another mark', (rig) => setChannels(rig, [{ write_latch: 0x77 }]), {}],
    ['channel 0 counts in another mode', (rig) => setChannels(rig, [{ mode: 0 }]), {}],
    ['the guest is in the middle of a reload', (rig) => setChannels(rig, [{ write_state: 4 }]), {}],
  ])('is told once, and looks no more, when %s', async (_what, happens, wish) => {
    const rig = await tickingGuest();
    const { pit, stirs } = rig;
    pit.watch(calm(pit, wish));
    await happens(rig);
    while (stirs() === 0) await turn();
    pit.takeLook();
    await forNs(20n * MS);
    expect(stirs()).toBe(1);
    expect(pit.takeLook()).toBeUndefined();
  });

  it.each<[string, (pit: PitRig['pit']) => unknown]>([
    ['by the next', (pit) => pit.watch(calm(pit))],
    ['by none', (pit) => pit.watch(undefined)],
    ['by a change', (pit) => pit.change({ expected: expecting(pit.read()), load: HOST, waitForTickNs: 0n })],
  ])('is ended %s', async (_what, end) => {
    const { pit, stirs } = await tickingGuest();
    // It would find a lag at its first look.
    pit.watch(calm(pit, { behindNs: 0n, delivered: pit.delivered() + 1000n, aheadNs: 0n }));
    await end(pit);
    // One that was found in between may still be told.
    await turn();
    const before = stirs();
    await forNs(20n * MS);
    expect(stirs()).toBe(before);
  });

  it('goes with its machine, and leaves nothing', async () => {
    const { runtime } = loadBinding().dispatcher;
    const before = runtime.counts();
    for (let round = 0; round < 20; round++) {
      const rig = await tickingGuest();
      rig.pit.watch(calm(rig.pit, { intervalNs: MS }));
      await rig.close();
      expect(() => rig.pit.watch(undefined)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    }
    expect({ ...runtime.counts(), threads: 0 }).toEqual({ ...before, threads: 0 });
  });

  it.each<[string, Partial<PitCalm>]>([
    ['no interval to speak of', { intervalNs: MS - 1n }],
    ['a beginning that is still to come', { sinceNs: 2n ** 63n }],
    ['a bound that no sum can hold', { behindNs: 2n ** 62n + 1n }],
    ['a negative lead', { aheadNs: -1n }],
    ['a mode that is none', { expected: { count: 1, latch: 0, mode: 6 } }],
  ])('is refused with %s', async (_what, wish) => {
    const { pit } = await bootPit([0xf4]);
    expect(() => pit.watch(calm(pit, wish))).toThrow(RangeError);
  });
});

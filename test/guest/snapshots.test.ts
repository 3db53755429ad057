/** Stock guests saved while they run, with work on disk and network; clones that go on, and know that they are others. */
import { expect, it } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { genericKernel, type KernelImage } from '../../lib/images/kernel.js';
import { guestScriptReport } from '../lib/guest-script.js';
import { expectSeries } from '../lib/snapshot-series.js';

interface Seen {
  readonly random: string;
  readonly clock: { readonly behindS: number; readonly aheadS: number };
  readonly log: string[];
}

interface Report {
  readonly release: string;
  readonly original: Seen;
  readonly clones: Seen[];
}

function expectRightClock({ clock }: Seen): void {
  expect(clock.behindS).toBeLessThanOrEqual(1);
  expect(clock.aheadS).toBeLessThanOrEqual(1);
}

const WATCHED = /lockup|stall|unstable|timekeeping/i;

it(
  'at work on disks, networks and a compiler are saved one time after another, and each clone verifies its disks and goes on',
  { timeout: 920_000 },
  () => expectSeries(['live', 'instant', 'paused'], 900),
);

async function play(kernel: KernelImage): Promise<Report> {
  const request = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }) };
  return guestScriptReport<Report>('snapshot-clones.mjs', request, { paths: ['kernel', 'initrd'], limitS: 580 });
}

it('have clones that keep time and have random numbers of their own', { timeout: 620_000 }, async () => {
  const { release, original, clones } = await play(await genericKernel());
  expect(release).not.toContain('cloud');
  const all = [original, ...clones];
  expect(new Set(all.map(({ random }) => random)).size).toBe(3);
  expect(original.log.join()).not.toContain('fork');
  for (const clone of clones) {
    expect(clone).toMatchObject({ source: 'kvm-clock', reason: 'poweroff' });
    // The kernel knows by the generation ID.
    expect(clone.log).toContain('random: crng reseeded due to virtual machine fork');
    expect(clone.log.filter((line) => WATCHED.test(line))).toEqual([]);
  }
  const [step, freeze] = clones;
  expectRightClock(step!);
  // It lost what passed while the other one lived.
  expect(freeze!.clock.behindS).toBeGreaterThan(1);
});

/** Stock guests saved while they run, with work on disk and network; clones that go on, and know that they are others. */
import { expect, it } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel, genericKernel, type KernelImage } from '../../lib/images/kernel.js';
import { guestScriptReport } from '../lib/guest-script.js';

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

interface WorkReport {
  readonly original: object;
  readonly clones: Seen[];
  readonly end: string;
}

const MODES = ['live', 'instant', 'paused', 'live', 'instant'];

function expectRightClock({ clock }: Seen): void {
  expect(clock.behindS).toBeLessThanOrEqual(1);
  expect(clock.aheadS).toBeLessThanOrEqual(1);
}

const WATCHED = /lockup|stall|unstable|timekeeping/i;

it(
  'under load are saved five times in a row, in three ways, and each clone verifies its disk and goes on',
  { timeout: 620_000 },
  async () => {
    const kernel = await defaultKernel();
    const report = await play<WorkReport>('snapshot-work.mjs', kernel, { modes: MODES });
    expect(report).toMatchObject({
      original: { bad: 0, errors: 0, session: { kind: 'exited', code: 0 } },
      end: 'poweroff',
    });
    expect(report.clones).toHaveLength(MODES.length);
    for (const clone of report.clones) {
      expect(clone).toMatchObject({ isOn: true, bad: 0, errors: 0, reason: 'poweroff' });
      expectRightClock(clone);
    }
    expect(new Set(report.clones.map(({ random }) => random)).size).toBe(MODES.length);
  },
);

async function play<T>(script: string, kernel: KernelImage, more: object = {}): Promise<T> {
  const request = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), ...more };
  return guestScriptReport<T>(script, request, { paths: ['kernel', 'initrd'], limitS: 580 });
}

it('have clones that keep time and have random numbers of their own', { timeout: 620_000 }, async () => {
  const { release, original, clones } = await play<Report>('snapshot-clones.mjs', await genericKernel());
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

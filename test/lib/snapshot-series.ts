/** The test of a guest that is saved one time after another; how many times says who calls. */
import { expect } from 'vitest';
import { probeKvm } from '../../lib/host/index.js';
import { busybox } from '../../lib/images/busybox.js';
import { COMPILER, debianPrograms, FIO } from '../../lib/images/debian-programs.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { guestScriptReport } from './guest-script.js';

interface Seen {
  readonly bad: Readonly<Record<string, number>>;
  readonly connections: number;
  readonly errors: number;
  readonly reason: string;
}

interface Clone extends Seen {
  readonly random: string;
  readonly clock: { readonly behindS: number; readonly aheadS: number };
}

/** Saves a guest at work so many times in a row; each clone verifies what it has, and goes on. */
export async function expectSeries(modes: readonly string[], limitS: number): Promise<void> {
  const kernel = await defaultKernel();
  const tools = [await debianPrograms(FIO), await debianPrograms(COMPILER)];
  const request = {
    ...{ modes, kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), fio: tools[0], compiler: tools[1] },
    ...{ busybox: (await busybox()).path, isEmbedded: !(await probeKvm()).linuxGuests },
  };
  const paths = ['kernel', 'initrd', 'fio', 'compiler', 'busybox'];
  const report = await guestScriptReport<{ original: Seen; clones: Clone[] }>('snapshot-series.mjs', request, {
    paths,
    limitS,
    ownNetwork: true,
  });
  const right = { bad: { disk: 0, fio: 0, compile: 0, stream: 0, ping: 0 }, errors: 0, reason: 'poweroff' };
  // One connection has outlived all of it.
  expect(report.original).toEqual({ ...right, connections: 1 });
  expect(report.clones).toHaveLength(modes.length);
  for (const clone of report.clones) {
    expect(clone).toMatchObject(right);
    expect(clone.clock.behindS).toBeLessThanOrEqual(1);
    expect(clone.clock.aheadS).toBeLessThanOrEqual(1);
  }
  expect(new Set(report.clones.map(({ random }) => random)).size).toBe(modes.length);
}

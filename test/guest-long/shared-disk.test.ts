/** One disk under three stock guests: fair shares while all of them want more, and the disk taken back a hundred times under fio. */
import { copyFileSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import type { DeviceContract } from '../../lib/vsp/index.js';
import { fioTools } from '../lib/fio-tools.js';
import { guestScriptReport } from '../lib/guest-script.js';

const TAKE_BACKS = 100;
const BASE_BYTES = 4 * 1024 * 1024;
const OWN_BYTES = 1024 * 1024;
/** Unequal demand, and shares that do not follow it. */
const GUESTS = [
  { depth: 1, weight: 2 },
  { depth: 4, weight: 3 },
  { depth: 16, weight: 1 },
];
const WEIGHTS = GUESTS.reduce((sum, { weight }) => sum + weight, 0);

interface Shares {
  readonly operations: number[];
  readonly bytes: number[];
}

interface Report {
  readonly small: Shares;
  readonly unequal: Shares;
  readonly takeBacks: number;
  /** Of each guest: what fio said, requests that the disk and its stand-in did meanwhile, errors in the kernel's log. */
  readonly fio: string[];
  readonly readsOn: { readonly disk: number; readonly standIn: number };
  readonly ioErrors: number[];
  readonly contracts: DeviceContract[];
}

const shareOf = (counts: readonly number[], index: number) =>
  counts[index]! / counts.reduce((sum, count) => sum + count, 0);

it('is shared fairly, and can be taken back at any time', { timeout: 620_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-shared-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = await defaultKernel();
  const tools = await fioTools();
  const [base, copy] = [join(folder, 'base.img'), join(folder, 'copy.img')];
  // What the guests verify is written here, since what they write is in their own overlays.
  const write = [
    '--name=base',
    '--rw=write',
    '--bs=4k',
    `--size=${BASE_BYTES}`,
    '--verify=crc32c',
    '--do_verify=0',
    '--verify_state_save=0',
  ];
  tools.run([...write, `--filename=${base}`, '--ioengine=psync']);
  truncateSync(base, BASE_BYTES + OWN_BYTES);
  copyFileSync(base, copy);
  const initrd = await defaultInitramfs({ kernel });
  const report = await guestScriptReport<Report>(
    'shared-disk-script.mjs',
    {
      ...{ kernel: kernel.path, initrd, tools: tools.cpio, base, copy },
      ...{ guests: GUESTS, baseBytes: BASE_BYTES, ownBytes: OWN_BYTES, takeBacks: TAKE_BACKS },
    },
    { paths: ['kernel', 'initrd', 'tools', 'base', 'copy'], limitS: 600 },
  );
  GUESTS.forEach(({ weight }, index) => {
    const share = weight / WEIGHTS;
    for (const counts of [report.small.operations, report.small.bytes, report.unequal.bytes]) {
      expect(Math.abs(shareOf(counts, index) / share - 1), `guest ${index}: ${counts.join(', ')}`).toBeLessThan(0.1);
    }
  });
  expect(report.takeBacks).toBe(TAKE_BACKS);
  for (const words of report.fio) {
    expect(new Set(words.match(/err= *\d+/g)), words).toEqual(new Set(['err= 0']));
    expect(words).not.toMatch(/verify:|error/);
  }
  expect(report.ioErrors).toEqual(GUESTS.map(() => 0));
  expect(Math.min(report.readsOn.disk, report.readsOn.standIn)).toBeGreaterThan(TAKE_BACKS);
  for (const { functions } of report.contracts) expect(functions['read']!.errors + functions['write']!.errors).toBe(0);
});

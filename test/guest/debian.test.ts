/**
 * Debian as a guest: its own initial RAM disk finds the root file system on a virtio disk with no special options, and
 * the system comes up to a login, with a second disk, entropy, and its guest agent on a console port.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { debianRoot } from '../../lib/images/debian-root.js';
import type { DeviceContract } from '../../lib/vsp/index.js';
import { guestScriptReport } from '../lib/guest-script.js';

interface Report {
  readonly rebinds: number;
  readonly held: number;
  readonly contracts: Readonly<Record<'root' | 'data', DeviceContract>>;
  /** Seconds from the start; for people. */
  readonly marks: Readonly<Record<string, number>>;
}

it('lives on lent devices from boot to power-off', { timeout: 1_220_000 }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-debian-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const root = await debianRoot().catch((error: unknown) => {
    if (process.getuid?.() !== 0) context.skip(`no Debian root file system: ${(error as Error).message}`);
    throw error;
  });
  const request = { kernel: root.kernelPath, initrd: root.initrdPath, image: root.imagePath, folder };
  const report = await guestScriptReport<Report>('debian-script.mjs', request, {
    paths: ['kernel', 'initrd', 'image', 'folder'],
    limitS: 1200,
  });
  console.log(`seconds: ${JSON.stringify(report.marks)}; ${report.rebinds} rebinds, ${report.held} requests held`);
  expect(report).toMatchObject({
    disks: [
      ['vda', String(1024 * 1024 * 1024), 'root'],
      ['vdb', String(8 * 1024 * 1024), 'data'],
      ['/dev/vda', 'ext4'],
      [root.release],
    ],
    generator: ['virtio_rng.0', '1000'],
    ping: { return: {} },
    osinfo: { return: { id: 'debian', 'kernel-release': root.release } },
    fio: ['0', '0'],
    ioErrors: 0,
    complaints: [],
    reason: 'poweroff',
  });
  expect(report.rebinds).toBeGreaterThan(2);
  const errors = Object.values(report.contracts).map(({ functions }) => functions['write']!.errors);
  expect(errors).toEqual([0, 0]);
  for (const name of ['root.qcow2', 'data.qcow2']) execFileSync('qemu-img', ['check', '-q', join(folder, name)]);
});

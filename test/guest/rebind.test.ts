/** The backend of a disk changed a hundred times under a stock guest that checks every byte it wrote. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import type { DeviceContract } from '../../lib/vsp/index.js';
import { guestScriptReport } from '../lib/guest-script.js';

const REBINDS = 100;

interface Report {
  readonly rounds: number;
  readonly held: number;
  readonly contract: DeviceContract;
}

it('leaves no trace in the guest', { timeout: 620_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-rebind-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = await defaultKernel();
  const request = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), folder, rebinds: REBINDS };
  const report = await guestScriptReport<Report>('rebind-script.mjs', request, {
    paths: ['kernel', 'initrd', 'folder'],
  });
  expect(report).toMatchObject({ bad: 0, ioErrors: 0, isSame: true, reason: 'poweroff' });
  expect(report.contract.rebinds).toBe(REBINDS + 1);
  expect(new Set(Object.values(report.contract.functions).map(({ errors }) => errors))).toEqual(new Set([0]));
  // It was at work meanwhile, and requests came while they had to be held.
  expect(report.rounds).toBeGreaterThan(16);
  expect(report.held).toBeGreaterThan(0);
  execFileSync('qemu-img', ['check', '-q', join(folder, 'disk.qcow2')]);
});

/** Entropy, console ports and disks as the stock kernel's own drivers see them, over a reboot, and while a disk grows. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { guestScriptReport } from '../lib/guest-script.js';

interface Look {
  readonly generator: string[];
  readonly names: string[];
  readonly portIsRight: boolean;
  readonly terminal: Readonly<Record<'before' | 'fromHost' | 'fromGuest' | 'after', string>>;
  readonly sizes: string[];
  readonly interrupts: string[];
}

interface Report {
  readonly first: Look;
  readonly second: Look;
  readonly [other: string]: unknown;
}

it('serve a stock guest, and once more after its reboot', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-lent-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const kernel = await defaultKernel();
  const request = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), folder };
  const report = await guestScriptReport<Report>('lent-devices.mjs', request, {
    paths: ['kernel', 'initrd', 'folder'],
  });

  for (const [look, growing] of [
    [report.first, 2048],
    [report.second, 6144],
  ] as const) {
    expect(look.generator[0]).toBe('virtio_rng.0');
    expect(look.names).toEqual(['log', 'org.vivarium.echo', 'tty']);
    expect(look.portIsRight).toBe(true);
    expect(look.sizes).toEqual(['4096', String(growing), 'first']);
    // One vector a queue: the drivers have taken MSI-X.
    expect(look.interrupts).toEqual(expect.arrayContaining(['req.0', 'input', 'control-i', 'config']));
  }
  // The size of the first boot's terminal is that of the second's, until it is changed.
  expect(report.first.terminal).toMatchObject({
    fromHost: '132 columns from the host',
    fromGuest: '50 rows from the guest\n',
    after: '50 132',
  });
  expect(report.second.terminal).toEqual({
    before: '50 132',
    fromHost: '90 columns from the host',
    fromGuest: '33 rows from the guest\n',
    after: '33 90',
  });
  expect(report.first.generator[1]).not.toBe(report.second.generator[1]);
  expect(report).toMatchObject({
    wrong: expect.stringMatching(/the new backend has 524288 bytes, the device 1048576/) as string,
    refreshed: { sizeBytes: 3 * 1024 * 1024 },
    grown: ['6144', String(3 * 1024 * 1024)],
    disk: { isKept: true, end: 'at the end' },
    contracts: {
      first: { class: 'block', backend: { kind: 'memory' } },
      growing: { class: 'block', backend: { kind: 'file' }, functions: { write: { by: 'native', errors: 0 } } },
      echo: { class: 'console', backend: { kind: 'callbacks' } },
      entropy: { class: 'entropy', functions: { bytes: { errors: 0 } } },
    },
    reason: 'poweroff',
  });
  const release = kernel.release;
  expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(`boot of ${release}\nboot of ${release}\n`);
});

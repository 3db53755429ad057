/**
 * kill -9 of the process that holds a machine, in the middle of its guest's writes: what was flushed is in the images, and
 * the qcow2 image is sound. The host goes on, and with it its page cache: what this shows of the raw image is that no byte
 * stays in the process once it is reported; that a flush reaches the disk (fdatasync) is not seen here, a flush that did
 * nothing would pass. Of qcow2 it shows more: tables that the process had kept to itself would be missing.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel } from '../../lib/images/kernel.js';
import { runGuestScript } from '../lib/guest-script.js';

const MiB = 1024 * 1024;
/** Reported before the end comes; with this many of 4 KiB, the load's places are not reached. */
const BLOCKS = 40;
/** `qemu-img check`: sound, or sound with leaked clusters. */
const SOUND = [0, 3];

it('leaves every block that was reported as flushed with the host, on a raw image and on qcow2, which is sound', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-killed-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [raw, qcow2, reports] = [join(folder, 'disk.img'), join(folder, 'disk.qcow2'), join(folder, 'reports')];
  for (const path of [raw, reports]) writeFileSync(path, '');
  truncateSync(raw, 40 * MiB);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '40M']);
  const kernel = await defaultKernel();
  const request = { kernel: kernel.path, initrd: await defaultInitramfs({ kernel }), raw, qcow2, reports };
  const paths = ['kernel', 'initrd', 'raw', 'qcow2', 'reports'];
  const { status, stderr } = await runGuestScript('killed-script.mjs', { ...request, blocks: BLOCKS }, { paths });
  expect(status, stderr).toBe(128 + 9);

  const flushed = readFileSync(reports, 'utf8').trimEnd().split('\n').map(Number);
  expect(flushed.length).toBeGreaterThanOrEqual(BLOCKS);
  const check = spawnSync('qemu-img', ['check', qcow2], { encoding: 'utf8' });
  expect(SOUND, check.stdout + check.stderr).toContain(check.status);
  const flat = join(folder, 'flat.img');
  execFileSync('qemu-img', ['convert', '-O', 'raw', qcow2, flat]);
  for (const image of [raw, flat]) {
    const bytes = readFileSync(image);
    const lost = flushed.filter((n) => {
      const wanted = Buffer.alloc(4096, `block ${n}\n`);
      return !bytes.subarray(n * 4096, (n + 1) * 4096).equals(wanted);
    });
    expect(lost, image).toEqual([]);
  }
});

/** What a snapshot's machine is and stands on, told before it is restored. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { describeSnapshot, Machine } from '../../lib/machine/index.js';
import { memoryDisk } from '../../lib/vsp/index.js';
import { assemble } from '../lib/assemble.js';
import { snapshotFolder } from '../lib/snapshots.js';

it.each([
  ['restart', true],
  ['end', false],
] as const)('a guest whose reset is a %s is started from files again: %s', async (onReset, isStarted) => {
  const folder = snapshotFolder();
  const [image, dir] = [path.join(folder, 'image'), path.join(folder, 'snap')];
  writeFileSync(image, assemble('count', 0x1000, { COUNTER: 0x2000 }));
  const machine = await Machine.create({
    ...{ name: 'box', memory: '16MiB', onReset, disks: [{ id: 'disk0', backend: memoryDisk('1MiB') }] },
    boot: { flat: image, address: 0x1000, mode: 'real16' },
  });
  onTestFinished(() => machine.close());
  await machine.snapshot(dir, { mode: 'paused' });
  expect(await describeSnapshot(dir)).toEqual({
    ...{ dir, chain: [dir], name: 'box', kind: 'flat', cpus: 1, memoryBytes: 2 ** 24 },
    ...{ images: [], nics: [], consolePorts: [], hasAgent: false },
    bootFiles: isStarted ? [image] : [],
  });
});

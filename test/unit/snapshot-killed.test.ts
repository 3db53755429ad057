/**
 * A process that saves or deletes snapshots is killed at random moments: a snapshot is there, whole, or it is not there;
 * what a dead process has left is gone when the next one writes to that place. The children run the built library.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { AddressSpace } from '../../lib/memory/index.js';
import { SnapshotReader, SnapshotWriter, verifySnapshot } from '../../lib/snapshot/index.js';
import { gpa } from '../../lib/base/address.js';

const GROUP_BYTES = 65_536;
const GROUPS = 256;
/** `npm run test:soak` has more of them. */
const KILLS = process.env['VIVARIUM_SOAK'] === undefined ? { saves: 20, deletes: 8 } : { saves: 100, deletes: 50 };
const SCRIPT = path.join(import.meta.dirname, '../lib/snapshot-child.mjs');

function scratch(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-killed-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Plays a scene, killed so long after it began, or not at all; how long it took. */
async function play(scene: string, folder: string, killAfterMs?: number): Promise<number> {
  const child = spawn(process.execPath, [SCRIPT, scene, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  await once(child.stdout, 'data');
  const begun = performance.now();
  if (killAfterMs !== undefined) {
    await Promise.race([delay(killAfterMs), exited]); // the moment itself is what is tried
    child.kill('SIGKILL');
  }
  const [status, signal] = await exited;
  expect([0, null]).toContain(status);
  if (killAfterMs === undefined) expect([status, signal]).toEqual([0, null]);
  return performance.now() - begun;
}

async function expectWhole(dir: string): Promise<void> {
  await verifySnapshot(dir);
  const reader = await SnapshotReader.open(dir);
  try {
    for (const group of [0, 1, 100, GROUPS - 1]) {
      const words = new Uint32Array(reader.source().read(group).buffer);
      expect([words[0], words.at(-1)]).toEqual(
        [1, words.length].map((at) => Math.imul(group * 16_384 + at, 0x9e3779b1) >>> 0),
      );
    }
  } finally {
    await reader.close();
  }
}

/** What the next writer finds and sweeps. */
async function nextWriter(folder: string, name: string): Promise<void> {
  const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: GROUP_BYTES }], hugePages: false });
  const writer = await SnapshotWriter.create(path.join(folder, name), { memory });
  await writer.abort();
  memory.close();
}

it('a save that is killed leaves a snapshot or none', { timeout: 300_000 }, async () => {
  const folder = scratch();
  const wholeMs = await play('save', folder);
  await expectWhole(path.join(folder, 'snap'));
  rmSync(path.join(folder, 'snap'), { recursive: true });
  let left = 0;
  for (let round = 0; round < KILLS.saves; round++) {
    await play('save', folder, Math.random() * wholeMs * 1.1);
    const dir = path.join(folder, 'snap');
    if (existsSync(dir)) {
      await expectWhole(dir);
      rmSync(dir, { recursive: true });
    }
    if (readdirSync(folder).length > 0) left++;
    await nextWriter(folder, 'snap');
    expect(readdirSync(folder)).toEqual([]);
  }
  // Some were killed in the middle, or this has shown nothing.
  expect(left).toBeGreaterThan(0);
});

it('a delete that is killed leaves children that are whole', { timeout: 300_000 }, async () => {
  const folder = scratch();
  await play('prepare', folder);
  const wholeMs = await play('delete', folder);
  expect(readdirSync(folder)).toEqual(['child']);
  await expectWhole(path.join(folder, 'child'));
  for (let round = 0; round < KILLS.deletes; round++) {
    rmSync(folder, { recursive: true });
    mkdirSync(folder);
    await play('prepare', folder);
    await play('delete', folder, Math.random() * wholeMs * 1.1);
    await expectWhole(path.join(folder, 'child'));
    if (existsSync(path.join(folder, 'base'))) await expectWhole(path.join(folder, 'base'));
  }
});

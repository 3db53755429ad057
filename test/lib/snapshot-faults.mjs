// A snapshot is written, or one that others stand on deleted, again and again: each time another call that changes files fails.
// Run by test/unit/snapshot-faults.test.ts with disk-faults.c around it. The last line of output is JSON.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { isDeepStrictEqual } from 'node:util';
import { AddressSpace } from '#lib/memory/index.js';
import { deleteSnapshot, SnapshotWriter, verifySnapshot } from '#lib/snapshot/index.js';
import { DiskFaults } from './disk-faults.mjs';

const { scene, folder, errno } = JSON.parse(process.argv[2]);
const GROUP = 65_536;
const GROUPS = 64;
/** What each attempt begins with. */
const prepared = `${folder}-prepared`;
mkdirSync(prepared);

const memory = new AddressSpace({ ranges: [{ gpa: 0, sizeBytes: GROUPS * GROUP }], hugePages: false });
function fill(seed) {
  for (let group = 0; group < GROUPS; group++) {
    const bytes = new Uint32Array(GROUP / 4).map((_, at) => Math.imul((group + seed) * 16_384 + at + 1, 0x9e3779b1));
    memory.write(group * GROUP, new Uint8Array(bytes.buffer));
  }
}

async function save(dir, parent, groups = 'all') {
  const writer = await SnapshotWriter.create(dir, { memory, parent, compress: 'none', threads: 1 });
  await writer.writeGroups(groups);
  // Zero by now, so that the file has gaps.
  for (const group of [2, 8]) memory.fill(group * GROUP, 0, GROUP);
  await writer.writeGroups(Uint32Array.of(2, 8));
  const access = new Uint16Array(GROUPS).fill(7);
  await writer.commit({ state: [{ type: 'test', version: 1, data: 'x'.repeat(100_000) }], config: {}, access });
}

/** Of the child; the others are the parent's. */
const OWN = Uint32Array.from({ length: GROUPS / 4 }, (_, index) => 2 * index);
fill(0);
await save(path.join(prepared, 'base'));
fill(GROUPS);
if (scene === 'delete') await save(path.join(prepared, 'child'), path.join(prepared, 'base'), OWN);

const scenes = {
  save: () => save(path.join(folder, 'snap'), path.join(folder, 'base'), OWN),
  delete: () => deleteSnapshot(path.join(folder, 'base')),
};

/** Nothing more and nothing less, and each snapshot stands on what it stood on. */
function isAsBefore() {
  const manifests = (at) => readdirSync(at).map((name) => [name, readFileSync(path.join(at, name, 'manifest.json'))]);
  return isDeepStrictEqual(manifests(folder), manifests(prepared));
}

const faults = new DiskFaults(folder);
const attempts = [];
do {
  rmSync(folder, { recursive: true });
  cpSync(prepared, folder, { recursive: true });
  fill(GROUPS);
  faults.failAt(attempts.length + 1, errno);
  const error = await scenes[scene]().then(
    () => undefined,
    ({ code, errno: name, message }) => ({ code, errno: name, message }),
  );
  attempts.push({ failed: faults.end(), error, left: readdirSync(folder).sort(), isAsBefore: isAsBefore() });
  for (const name of readdirSync(folder)) await verifySnapshot(path.join(folder, name));
} while (attempts.at(-1).failed !== undefined);
memory.close();
console.log(JSON.stringify(attempts));

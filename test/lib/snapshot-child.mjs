// Saves or deletes a snapshot and is killed in the middle of it by test/unit/snapshot-killed.test.ts. Arguments: the scene
// and the folder. It says 'go' before it begins and 'done' when all is done.
import path from 'node:path';
import process from 'node:process';
import { AddressSpace } from '#lib/memory/index.js';
import { deleteSnapshot, SnapshotWriter } from '#lib/snapshot/index.js';

const [, , scene, folder] = process.argv;
const GROUP = 65_536;
const GROUPS = 256;

const memory = new AddressSpace({ ranges: [{ gpa: 0, sizeBytes: GROUPS * GROUP }], hugePages: false });
// Each group another content, which the test can tell: its number in every word.
const words = new Uint32Array(GROUP / 4);
for (let group = 0; group < GROUPS; group++) {
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(group * 16_384 + at + 1, 0x9e3779b1);
  memory.write(group * GROUP, new Uint8Array(words.buffer));
}

async function save(name, parent) {
  const writer = await SnapshotWriter.create(path.join(folder, name), { memory, parent, bufferBytes: 0 });
  const some = Uint32Array.from({ length: GROUPS / 2 }, (_, index) => 2 * index);
  await writer.writeGroups(parent === undefined ? 'all' : some);
  await writer.commit({ state: [{ type: 'test', version: 1, data: 'x'.repeat(100_000) }], config: {} });
}

process.stdout.write('go\n');
if (scene === 'save') await save('snap');
if (scene === 'prepare') {
  await save('base');
  await save('child', path.join(folder, 'base'));
}
if (scene === 'delete') await deleteSnapshot(path.join(folder, 'base'));
memory.close();
process.stdout.write('done\n');

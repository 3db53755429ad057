import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AddressSpace } from '../memory/index.js';
import { writeContents } from '../vsp/block/contents-file.js';
import { diskReferenceState } from '../vsp/index.js';
import { GROUP_BYTES } from './format.js';
import { deleteSnapshot, listSnapshots, verifySnapshot } from './store.js';
import { fillMemory, makeMemory, save, scratchFolder } from './testing.js';
import { SnapshotWriter } from './writer.js';

const UNIT_BYTES = 4096;
let folder: string;
let remove: () => void;
let memory: AddressSpace;
beforeEach(() => {
  ({ folder, remove } = scratchFolder());
  memory = makeMemory(8 * GROUP_BYTES);
  fillMemory(memory, 1);
});
afterEach(() => {
  memory.close();
  remove();
});
const at = (...names: string[]) => path.join(folder, ...names);
const FILE = 'disk-root.contents';

/** A snapshot with a disk whose contents lie in its folder; its id, and the bytes that it says it has written. */
async function saveWithDisk(name: string, parent?: string): Promise<{ id: string; bytes: number }> {
  const writer = await SnapshotWriter.create(at(name), { memory, parent: parent && at(parent) });
  await writer.writeGroups(parent === undefined ? 'all' : Uint32Array.of(1));
  const units = new Map([[3, new Uint8Array(UNIT_BYTES).fill(7)]]);
  const sizeBytes = 1 << 20;
  const frozen = { unitBytes: UNIT_BYTES, units, release: () => undefined };
  const written = await writeContents(path.join(writer.draftFolder, FILE), frozen, sizeBytes);
  const state = [diskReferenceState.save({ kind: 'contents', id: 'root', file: FILE, sizeBytes, ...written })];
  return writer.commit({ state, config: {} });
}

describe('contents of disks in a snapshot', () => {
  it('count among its bytes', async () => {
    const { bytes } = await saveWithDisk('a');
    const files = readdirSync(at('a')).filter((name) => name !== 'manifest.json');
    const found = files.reduce((sum, name) => sum + statSync(at('a', name)).size, 0);
    expect(bytes).toBe(found);
    expect((await listSnapshots(folder)).snapshots).toMatchObject([{ name: 'a', fileBytes: found }]);
  });

  it('are verified, every byte of them', async () => {
    await saveWithDisk('a');
    await verifySnapshot(at('a'));
    const sound = readFileSync(at('a', FILE));
    for (let byte = 0; byte < sound.length; byte += 97) {
      const bytes = Buffer.from(sound);
      bytes[byte]! ^= 1;
      writeFileSync(at('a', FILE), bytes);
      await expect(verifySnapshot(at('a'))).rejects.toThrow(`${at('a', FILE)}: its checksum is wrong`);
    }
    writeFileSync(at('a', FILE), sound);
    truncateSync(at('a', FILE), sound.length - 1);
    await expect(verifySnapshot(at('a'))).rejects.toThrow(`${at('a', FILE)}: it has`);
  });

  it('go with a child that takes over what it needs of its parent', async () => {
    await save(at('parent'), memory);
    await saveWithDisk('child', 'parent');
    const before = readFileSync(at('child', FILE));
    expect(await deleteSnapshot(at('parent'))).toEqual({ merged: ['child'] });
    expect(readFileSync(at('child', FILE)).equals(before)).toBe(true);
    expect(statSync(at('child', FILE)).mode & 0o777).toBe(0o600);
    await verifySnapshot(at('child'));
  });

  it('that are damaged keep a parent from being deleted', async () => {
    await save(at('parent'), memory);
    await saveWithDisk('child', 'parent');
    writeFileSync(at('child', FILE), 'gone');
    await expect(deleteSnapshot(at('parent'))).rejects.toMatchObject({ code: 'ERR_SNAPSHOT' });
    expect(readdirSync(folder).sort()).toEqual(['child', 'parent']);
  });

  it('are the only other files: what no check covers is named', async () => {
    await saveWithDisk('a');
    writeFileSync(at('a', 'disk-other.contents'), 'x');
    await expect(verifySnapshot(at('a'))).rejects.toThrow(at('a', 'disk-other.contents'));
  });
});

import { cpSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Random } from '../base/fuzzing.js';
import type { AddressSpace } from '../memory/index.js';
import { GROUP_BYTES } from './format.js';
import { decodeManifest, encodeManifest } from './manifest.js';
import { SnapshotReader } from './reader.js';
import { deleteSnapshot, listSnapshots, snapshotTree, verifySnapshot } from './store.js';
import { SnapshotWriter } from './writer.js';
import {
  CONTENTS,
  contentOf,
  fillMemory,
  groupBytes,
  load,
  makeMemory,
  sameBytes,
  save,
  scratchFolder,
  setGroup,
} from './testing.js';

const GROUPS = 24;
let folder: string;
let remove: () => void;
let memory: AddressSpace;
beforeEach(() => {
  ({ folder, remove } = scratchFolder());
  memory = makeMemory(GROUPS * GROUP_BYTES);
  fillMemory(memory, 1);
});
afterEach(() => {
  memory.close();
  remove();
});
const at = (name: string) => path.join(folder, name);

/** Changes some groups and saves them as a child. */
async function child(name: string, parent: string, seed: number): Promise<Uint8Array> {
  const random = new Random(seed);
  const groups = Array.from({ length: GROUPS }, (_, group) => group).filter(() => random.chance(3));
  for (const group of groups)
    setGroup(memory, group, groupBytes(random.of(['zero', 'random', 'text', 'one']), random.word()));
  await save(at(name), memory, { parent: at(parent), groups });
  return contentOf(memory);
}

async function chain(names: readonly string[]): Promise<Map<string, Uint8Array>> {
  const contents = new Map<string, Uint8Array>();
  await save(at(names[0]!), memory);
  contents.set(names[0]!, contentOf(memory));
  for (const [index, name] of names.slice(1).entries()) contents.set(name, await child(name, names[index]!, index + 7));
  return contents;
}

async function expectAll(contents: ReadonlyMap<string, Uint8Array>): Promise<void> {
  for (const [name, bytes] of contents) {
    await verifySnapshot(at(name));
    expect([name, sameBytes(await load(at(name)), bytes)]).toEqual([name, true]);
  }
}

describe('a chain', () => {
  it('of five is restored directly, each of it', async () => {
    const contents = await chain(['a', 'b', 'c', 'd', 'e']);
    await expectAll(contents);
    const reader = await SnapshotReader.open(at('e'));
    expect(reader.chain).toEqual(['e', 'd', 'c', 'b', 'a'].map(at));
    await reader.close();
    expect(statSync(at('e/memory')).size).toBeLessThan(statSync(at('a/memory')).size);
  });

  it('is found when it moves as a whole, and when its parent has another name', async () => {
    const contents = await chain(['a', 'b']);
    renameSync(at('a'), at('z'));
    expect(sameBytes(await load(at('b')), contents.get('b')!)).toBe(true);
    renameSync(folder, `${folder}-moved`);
    cpSync(`${folder}-moved`, folder, { recursive: true });
    rmSync(`${folder}-moved`, { recursive: true });
    expect(sameBytes(await load(at('b')), contents.get('b')!)).toBe(true);
  });

  it('is refused by name when a parent is missing, or of another lineage', async () => {
    await chain(['a', 'b', 'c']);
    renameSync(at('a'), path.join(folder, '.hidden'));
    await expect(SnapshotReader.open(at('c'))).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_PARENT',
      message: expect.stringContaining(at('a')),
    });
    fillMemory(memory, 99);
    await save(at('a'), memory);
    await expect(SnapshotReader.open(at('c'))).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_PARENT',
      message: expect.stringMatching(/not the snapshot/),
    });
    await expect(verifySnapshot(at('b'))).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_PARENT' });
  });

  it('needs memory of one size', async () => {
    await save(at('a'), memory);
    const other = makeMemory(GROUP_BYTES);
    await expect(save(at('b'), other, { parent: at('a') })).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_PARENT' });
    other.close();
    expect(readdirSync(folder)).toEqual(['a']);
  });
});

describe('closing in the middle', () => {
  it('ends a reading that was under way, which is not sound by that', async () => {
    await save(at('a'), memory);
    const reader = await SnapshotReader.open(at('a'));
    const groups = reader.source();
    const loaded = groups.load(Uint32Array.from({ length: 20_000 }, (_, at) => at % GROUPS));
    const refused = expect(loaded).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await reader.close();
    await refused;
  });

  it('ends a writing that was under way, and its signal says nothing any more', async () => {
    const end = new AbortController();
    const writer = await SnapshotWriter.create(at('a'), { memory, signal: end.signal });
    const list = Uint32Array.from({ length: 20_000 }, (_, at) => at % GROUPS);
    const refused = expect(writer.writeGroups(list)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await writer.abort();
    end.abort();
    await refused;
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('a store', () => {
  it('refuses an index of another size before it makes room for it', async () => {
    await save(at('a'), memory);
    const file = at('a/manifest.json');
    const manifest = decodeManifest(readFileSync(file), file);
    const index = { ...manifest.parts.index, sizeBytes: 2 ** 40 };
    truncateSync(at('a/index'), index.sizeBytes);
    writeFileSync(file, encodeManifest({ ...manifest, parts: { ...manifest.parts, index } }));
    await expect(verifySnapshot(at('a'))).rejects.toMatchObject({ code: 'ERR_SNAPSHOT' });
  });

  it('lists snapshots and what is broken, and shows how they stand on each other', async () => {
    await chain(['a', 'b', 'c']);
    memory.write(0, groupBytes('random', 5));
    await save(at('d'), memory, { parent: at('a'), groups: [0] });
    cpSync(at('d'), at('e'), { recursive: true });
    rmSync(at('e/manifest.json'));
    cpSync(at('d/index'), at('e/manifest.json'));
    const { snapshots, broken } = await listSnapshots(folder);
    expect(snapshots.map(({ name }) => name).sort()).toEqual(['a', 'b', 'c', 'd']);
    expect(broken).toMatchObject([{ name: 'e', error: { code: 'ERR_SNAPSHOT' } }]);
    const tree = await snapshotTree(folder);
    expect(tree).toMatchObject([
      { name: 'a', children: [{ name: 'b', children: [{ name: 'c', children: [] }] }, { name: 'd' }] },
    ]);
    renameSync(at('a'), at('.a'));
    expect((await snapshotTree(folder)).map(({ name, parentElsewhere }) => [name, parentElsewhere])).toEqual([
      ['b', true],
      ['d', true],
    ]);
  });

  it('of nothing is empty, and of no folder an error', async () => {
    expect(await listSnapshots(folder)).toEqual({ snapshots: [], broken: [] });
    await expect(listSnapshots(at('none'))).rejects.toMatchObject({ code: 'ERR_SYSTEM', errno: 'ENOENT' });
  });
});

describe('deleting', () => {
  it('is refused while a child of it is being saved, and of its parent too', async () => {
    const contents = await chain(['a', 'b']);
    const writer = await SnapshotWriter.create(at('c'), { memory, parent: at('b') });
    const refusal = { code: 'ERR_SNAPSHOT_REFUSED', message: expect.stringContaining('is being made') as string };
    await expect(deleteSnapshot(at('b'))).rejects.toMatchObject(refusal);
    await expect(deleteSnapshot(at('a'))).rejects.toMatchObject(refusal);
    await writer.commit(CONTENTS);
    contents.set('c', contentOf(memory));
    await expectAll(contents);
    expect(await deleteSnapshot(at('b'))).toEqual({ merged: ['c'] });
  });

  it('leaves no child behind whose parent went all the same', async () => {
    await chain(['a']);
    const writer = await SnapshotWriter.create(at('b'), { memory, parent: at('a') });
    rmSync(at('a'), { recursive: true });
    await expect(writer.commit(CONTENTS)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_PARENT' });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('is refused while it can not be told what stands on it', async () => {
    await chain(['a', 'b']);
    const file = at('b/manifest.json');
    writeFileSync(file, encodeManifest({ ...decodeManifest(readFileSync(file), file), version: 2 as 1 }));
    await expect(deleteSnapshot(at('a'))).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: expect.stringMatching(/b \(.*version 2/) as string,
    });
    expect(readdirSync(folder).sort()).toEqual(['a', 'b']);
  });

  it.each(['a', 'b', 'c', 'd'])('%s of a chain leaves all others as they were', async (name) => {
    const contents = await chain(['a', 'b', 'c', 'd']);
    const { merged } = await deleteSnapshot(at(name));
    contents.delete(name);
    expect(merged.length).toBe(name === 'd' ? 0 : 1);
    expect(readdirSync(folder).sort()).toEqual([...contents.keys()]);
    await expectAll(contents);
  });

  it('one after another leaves the last one, whole', async () => {
    const contents = await chain(['a', 'b', 'c', 'd']);
    for (const name of ['b', 'a', 'c']) {
      await deleteSnapshot(at(name));
      contents.delete(name);
      await expectAll(contents);
    }
    const [last] = (await listSnapshots(folder)).snapshots;
    expect(last).toMatchObject({ name: 'd', parentId: undefined });
  });

  it('is refused with the names of children where that is wanted', async () => {
    await chain(['a', 'b']);
    await expect(deleteSnapshot(at('a'), { children: 'refuse' })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: expect.stringContaining('b stands on it'),
    });
    await expect(deleteSnapshot(folder)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT' });
    expect(readdirSync(folder).sort()).toEqual(['a', 'b']);
  });

  it('that fails or is aborted leaves the child as it was', async () => {
    const contents = await chain(['a', 'b']);
    const manifest = readFileSync(at('b/manifest.json'));
    await expect(deleteSnapshot(at('a'), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(readFileSync(at('b/manifest.json')).equals(manifest)).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['a', 'b']);
    await expectAll(contents);
  });

  it('does not disturb who has it open', async () => {
    const contents = await chain(['a', 'b']);
    const reader = await SnapshotReader.open(at('b'));
    await deleteSnapshot(at('a'));
    await deleteSnapshot(at('b'));
    const target = makeMemory(memory.sizeBytes);
    await reader.loadAll(target, { fresh: true });
    expect(sameBytes(contentOf(target), contents.get('b')!)).toBe(true);
    target.close();
    await reader.close();
    expect(readdirSync(folder)).toEqual([]);
  });
});

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import type { AddressSpace } from '../memory/index.js';
import { GROUP_BYTES } from './format.js';
import { GroupTable } from './group-index.js';
import type { SnapshotProgress } from './progress.js';
import { SnapshotReader } from './reader.js';
import { verifySnapshot } from './store.js';
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
import { SnapshotWriter } from './writer.js';

let folder: string;
let remove: () => void;
let memory: AddressSpace;
beforeEach(() => {
  ({ folder, remove } = scratchFolder());
  memory = makeMemory(64 * GROUP_BYTES);
});
afterEach(() => {
  memory.close();
  remove();
});
const dir = () => path.join(folder, 'snap');

describe('a snapshot', () => {
  it.each(['none', 'zstd'] as const)('gives memory, state, configuration and counters back (%s)', async (compress) => {
    fillMemory(memory, 7);
    const access = Uint16Array.from({ length: 64 }, (_, group) => group * 1000);
    const id = await save(dir(), memory, { compress, contents: { ...CONTENTS, access } });
    expect(sameBytes(await load(dir()), contentOf(memory))).toBe(true);
    await verifySnapshot(dir());
    const reader = await SnapshotReader.open(dir());
    expect(reader).toMatchObject({ id, state: CONTENTS.state, config: CONTENTS.config, access, groups: 64 });
    for (let group = 0; group < 64; group++) {
      const bytes = reader.source().read(group);
      expect(sameBytes(bytes, memory.read(group * GROUP_BYTES, GROUP_BYTES))).toBe(true);
    }
    await reader.close();
  });

  it('is for its user alone, with nothing else in its folder or beside it', async () => {
    fillMemory(memory, 1);
    await save(dir(), memory, { contents: { ...CONTENTS, access: new Uint16Array(64) } });
    expect(readdirSync(folder)).toEqual(['snap']);
    expect(readdirSync(dir()).sort()).toEqual(['access', 'index', 'manifest.json', 'memory', 'state']);
    expect(statSync(dir()).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(dir())) expect(statSync(path.join(dir(), name)).mode & 0o777).toBe(0o600);
  });

  it('of memory that is no whole number of groups has all of it', async () => {
    const odd = makeMemory(3 * GROUP_BYTES + 8192);
    try {
      odd.write(0, groupBytes('random', 1));
      odd.fill(3 * GROUP_BYTES, 0x5a, 8192);
      await save(dir(), odd, { compress: 'none' });
      expect(sameBytes(await load(dir()), contentOf(odd))).toBe(true);
      await verifySnapshot(dir());
    } finally {
      odd.close();
    }
  });

  it('stores zeros not at all and equal groups once', async () => {
    for (let group = 0; group < 64; group++) setGroup(memory, group, groupBytes(group % 2 ? 'one' : 'zero', 0));
    setGroup(memory, 40, groupBytes('random', 3));
    const writer = await SnapshotWriter.create(dir(), { memory, compress: 'none', threads: 1 });
    const totals = await writer.writeGroups('all');
    expect(totals).toMatchObject({ groupsDone: 64, zeroGroups: 31, sameGroups: 31, rawGroups: 2, zstdGroups: 0 });
    await writer.commit(CONTENTS);
    expect(statSync(path.join(dir(), 'memory')).size).toBe(2 * GROUP_BYTES);
    expect(sameBytes(await load(dir()), contentOf(memory))).toBe(true);
  });

  it('keeps raw what zstd does not make smaller', async () => {
    for (let group = 0; group < 64; group++) setGroup(memory, group, groupBytes(group < 8 ? 'text' : 'random', group));
    const writer = await SnapshotWriter.create(dir(), { memory, compress: 'zstd', threads: 1 });
    expect(await writer.writeGroups('all')).toMatchObject({ zstdGroups: 8, rawGroups: 56 });
    await writer.commit(CONTENTS);
    expect(sameBytes(await load(dir()), contentOf(memory))).toBe(true);
  });
});

describe('groups that are written again', () => {
  it.each(['none', 'zstd'] as const)('are what they were last, whoever shared their bytes (%s)', async (compress) => {
    fillMemory(memory, 1);
    const writer = await SnapshotWriter.create(dir(), { memory, compress });
    await writer.writeGroups('all');
    for (let round = 2; round < 12; round++) {
      const some = Uint32Array.from({ length: 64 }, (_, group) => group).filter((group) => (group * 7 + round) % 3 > 0);
      const other = makeMemory(memory.sizeBytes);
      fillMemory(other, round);
      for (const group of some) setGroup(memory, group, other.read(group * GROUP_BYTES, GROUP_BYTES));
      other.close();
      await writer.writeGroups(some);
    }
    await writer.commit(CONTENTS);
    expect(sameBytes(await load(dir()), contentOf(memory))).toBe(true);
    await verifySnapshot(dir());
    // Stated in native/snapshot/extent_book.h; what is not in use are holes.
    const { size, blocks } = statSync(path.join(dir(), 'memory'));
    expect(size).toBeLessThanOrEqual(2 * memory.sizeBytes);
    expect(blocks * 512).toBeLessThanOrEqual(memory.sizeBytes + 64 * 4096);
  });

  it('never change a group that shared their bytes', async () => {
    for (const group of [3, 5, 9]) setGroup(memory, group, groupBytes('random', 1));
    const writer = await SnapshotWriter.create(dir(), { memory, threads: 1 });
    await writer.writeGroups('all');
    setGroup(memory, 3, groupBytes('random', 2));
    await writer.writeGroups(Uint32Array.of(3));
    await writer.commit(CONTENTS);
    const table = new GroupTable(readFileSync(path.join(dir(), 'index')).subarray(32));
    expect(table.row(9)).toMatchObject({ codec: GroupCodec.SAME, offset: 5 });
    expect(sameBytes(await load(dir()), contentOf(memory))).toBe(true);
  });
});

describe('the sink', () => {
  it('takes copies as long as there is room, and writes them whatever becomes of the memory', async () => {
    fillMemory(memory, 3);
    const before = contentOf(memory);
    const writer = await SnapshotWriter.create(dir(), { memory, bufferBytes: 4 * GROUP_BYTES });
    const sink = writer.sinkForPager();
    for (let group = 0; group < 64; group++) {
      const bytes = memory.read(group * GROUP_BYTES, GROUP_BYTES);
      memory.fill(group * GROUP_BYTES, 0xff, GROUP_BYTES);
      while (!sink.offer(group, bytes)) await writer.drained();
    }
    await writer.drained();
    await writer.commit(CONTENTS);
    expect(sameBytes(await load(dir()), before)).toBe(true);
  });

  it('drops what it is offered when the snapshot was given up', async () => {
    const writer = await SnapshotWriter.create(dir(), { memory });
    const sink = writer.sinkForPager();
    await writer.abort();
    expect(() => sink.offer(0, new Uint8Array(GROUP_BYTES))).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('a writer', () => {
  it('refuses a place that is taken, and memory that was not written', async () => {
    await save(dir(), memory);
    await expect(SnapshotWriter.create(dir(), { memory })).rejects.toMatchObject({ errno: 'EEXIST' });
    const writer = await SnapshotWriter.create(path.join(folder, 'other'), { memory });
    await writer.writeGroups(Uint32Array.of(0, 1));
    await expect(writer.commit(CONTENTS)).rejects.toMatchObject({ code: 'ERR_STATE' });
    expect(readdirSync(folder)).toEqual(['snap']);
    await expect(writer.writeGroups('all')).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('whose place is taken meanwhile leaves it as it is', async () => {
    const writer = await SnapshotWriter.create(dir(), { memory });
    await writer.writeGroups('all');
    const id = await save(dir(), memory);
    await expect(writer.commit(CONTENTS)).rejects.toMatchObject({ code: 'ERR_SYSTEM', syscall: 'renameat2' });
    expect(readdirSync(folder)).toEqual(['snap']);
    const reader = await SnapshotReader.open(dir());
    expect(reader.id).toBe(id);
    await reader.close();
  });

  it('that is aborted at any point leaves nothing', async () => {
    fillMemory(memory, 5);
    for (const moment of ['before', 'while', 'after', 'commit'] as const) {
      const controller = new AbortController();
      if (moment === 'before') controller.abort();
      const saving = (async () => {
        const writer = await SnapshotWriter.create(dir(), { memory, signal: controller.signal });
        const written = writer.writeGroups('all', () => moment === 'while' && controller.abort());
        await written;
        if (moment === 'after') controller.abort();
        const committed = writer.commit(CONTENTS);
        if (moment === 'commit') controller.abort();
        await committed;
      })();
      await expect(saving, moment).rejects.toMatchObject({ code: 'ERR_ABORTED' });
      expect(readdirSync(folder), moment).toEqual([]);
    }
  });

  it('tells how far it is', async () => {
    fillMemory(memory, 5);
    const clock = new ManualClock();
    const seen: SnapshotProgress[] = [];
    const writer = await SnapshotWriter.create(dir(), { memory, clock });
    await writer.writeGroups('all', (progress) => {
      seen.push(progress);
      clock.advance(1_000_000_000n);
    });
    await writer.commit(CONTENTS);
    expect(seen.at(-1)).toMatchObject({ bytesDone: memory.sizeBytes, bytesTotal: memory.sizeBytes });
    expect(existsSync(dir())).toBe(true);
  });

  it('checks what it is given', async () => {
    const writer = await SnapshotWriter.create(dir(), { memory });
    await expect(writer.writeGroups(Uint32Array.of(64))).rejects.toThrow(RangeError);
    expect(readdirSync(folder)).toEqual([]);
    await expect(SnapshotWriter.create(path.join(folder, 'no', 'snap'), { memory })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT',
      cause: { errno: 'ENOENT' },
    });
  });
});

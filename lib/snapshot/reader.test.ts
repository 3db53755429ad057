import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../base/errors.js';
import { Random } from '../base/fuzzing.js';
import { GroupCodec } from '../kvm/native-snapshot.js';
import { crc32c as crcOf, GroupReadError, type AddressSpace } from '../memory/index.js';
import { GROUP_BYTES } from './format.js';
import { encodeIndex, GroupTable, type Row } from './group-index.js';
import { decodeManifest, digestOf, encodeManifest } from './manifest.js';
import { SnapshotReader } from './reader.js';
import { verifySnapshot } from './store.js';
import {
  CONTENTS,
  contentOf,
  groupBytes,
  load,
  makeMemory,
  sameBytes,
  save,
  scratchFolder,
  setGroup,
} from './testing.js';

const GROUPS = 12;
let folder: string;
let remove: () => void;
let dir: string;
let memory: AddressSpace;

beforeAll(async () => {
  ({ folder, remove } = scratchFolder());
  dir = path.join(folder, 'snap');
  memory = makeMemory(GROUPS * GROUP_BYTES);
  const kinds = [
    'random',
    'text',
    'zero',
    'one',
    'text',
    'random',
    'one',
    'zero',
    'text',
    'text',
    'random',
    'text',
  ] as const;
  kinds.forEach((kind, group) => setGroup(memory, group, groupBytes(kind, group)));
  await save(dir, memory, { contents: { ...CONTENTS, access: new Uint16Array(GROUPS).fill(3) }, compress: 'zstd' });
});
afterAll(() => {
  memory.close();
  remove();
});

/** Whether the reader finds what `change` does to a copy. */
async function finds(name: string, change: (dir: string) => void): Promise<unknown> {
  const copy = path.join(folder, name);
  cpSync(dir, copy, { recursive: true });
  try {
    change(copy);
    await verifySnapshot(copy);
    return undefined;
  } catch (error) {
    return error;
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** A copy whose manifest fits what was changed in it, as somebody who means harm would make it. */
async function forged(
  change: (parts: {
    table: GroupTable;
    manifest: Record<string, unknown> & { parts: { memory: { sizeBytes: number } } };
  }) => void,
): Promise<unknown> {
  return finds('forged', (copy) => {
    const file = (name: string) => path.join(copy, name);
    const manifest = decodeManifest(readFileSync(file('manifest.json')), 'manifest.json');
    const table = new GroupTable(new Uint8Array(readFileSync(file('index')).subarray(32)));
    const parts = { table, manifest: structuredClone(manifest) };
    change(parts);
    const index = encodeIndex(table, parts.manifest.parts.memory.sizeBytes);
    parts.manifest.parts.index = { sizeBytes: index.length, sha256: digestOf(index) };
    writeFileSync(file('index'), index);
    writeFileSync(file('manifest.json'), encodeManifest(parts.manifest));
  });
}

const wrong = expect.objectContaining({ code: 'ERR_SNAPSHOT' });

describe('damage', () => {
  it('of any single bit in any file is found', { timeout: 120_000 }, async () => {
    const copy = path.join(folder, 'flipped');
    cpSync(dir, copy, { recursive: true });
    const random = new Random(Number(process.env['VIVARIUM_FUZZ_SEED'] ?? Date.now()));
    const files = readdirSync(copy).map((name) => ({ name, bytes: readFileSync(path.join(copy, name)).length }));
    // As many in the small files as in the memory: each byte counts.
    const flips = Array.from({ length: 10_000 }, () => {
      const file = random.of(files);
      return { name: file.name, at: random.below(file.bytes), bit: random.below(8) };
    });
    const reader = await SnapshotReader.open(copy);
    const one = new Uint8Array(1);
    const flip = (fd: number, at: number, bit: number): void => {
      readSync(fd, one, 0, 1, at);
      one[0]! ^= 1 << bit;
      writeSync(fd, one, 0, 1, at);
    };
    for (const { name, at, bit } of flips) {
      const fd = openSync(path.join(copy, name), 'r+');
      flip(fd, at, bit);
      // Memory is read at every verification; the other files are when it is opened.
      const verified = name === 'memory' ? reader.verify() : verifySnapshot(copy);
      const error = await verified.then(
        () => undefined,
        (reason: unknown) => reason,
      );
      flip(fd, at, bit);
      closeSync(fd);
      if (!(error instanceof VmmError)) throw new Error(`bit ${bit} of byte ${at} of ${name}: ${String(error)}`);
    }
    await reader.close();
    await verifySnapshot(copy);
    rmSync(copy, { recursive: true });
  });

  it('by truncation at every boundary of groups, and of rows, is found', async () => {
    const table = new GroupTable(new Uint8Array(readFileSync(path.join(dir, 'index')).subarray(32)));
    const offsets = [...table.storedByOffset()].map((group) => table.offset(group));
    for (const at of offsets)
      expect(await finds('cut', (copy) => truncateSync(path.join(copy, 'memory'), at))).toEqual(wrong);
    for (let at = 0; at < 32 + GROUPS * 24; at += 8) {
      expect(await finds('cut', (copy) => truncateSync(path.join(copy, 'index'), at))).toEqual(wrong);
    }
    for (const name of ['state', 'access', 'manifest.json']) {
      for (const at of [0, 1, 30]) {
        expect(await finds('cut', (copy) => truncateSync(path.join(copy, name), at))).toEqual(wrong);
      }
    }
  });

  it('after it was opened is told with group, file and place', async () => {
    const copy = path.join(folder, 'later');
    cpSync(dir, copy, { recursive: true });
    const reader = await SnapshotReader.open(copy);
    truncateSync(path.join(copy, 'memory'), 1000);
    const target = makeMemory(memory.sizeBytes);
    const error = await reader.loadAll(target, { fresh: true }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(GroupReadError);
    expect(error).toMatchObject({ code: 'ERR_SNAPSHOT', kind: 'short-read', group: 0, fileOffset: 0 });
    expect(() => reader.source().read(5)).toThrow(GroupReadError);
    // The rest of it is as it was.
    expect(sameBytes(reader.source().read(2), groupBytes('zero', 0))).toBe(true);
    target.close();
    await reader.close();
    rmSync(copy, { recursive: true });
  });
});

describe('what is no snapshot', () => {
  it.each<[string, (copy: string) => void, RegExp]>([
    ['an empty folder', (copy) => (rmSync(copy, { recursive: true }), mkdirSync(copy)), /no snapshot/],
    ['a file', (copy) => (rmSync(copy, { recursive: true }), writeFileSync(copy, '')), /no folder/],
    ['a folder without memory', (copy) => rmSync(path.join(copy, 'memory')), /missing/],
    ['a link in place of a file', (copy) => link(copy, 'memory'), /link/],
    ['a pipe in place of a file', (copy) => pipe(copy, 'state'), /regular/],
    [
      'a folder in place of a file',
      (copy) => (rmSync(path.join(copy, 'index')), mkdirSync(path.join(copy, 'index'))),
      /regular/,
    ],
    ['a manifest of any size', (copy) => truncateSync(path.join(copy, 'manifest.json'), 2 ** 40), /larger/],
    ['a manifest of another kind', (copy) => writeFileSync(path.join(copy, 'manifest.json'), '{}'), /no manifest/],
  ])('%s is refused by name', async (_name, change, message) => {
    const error = await finds('nothing', change);
    expect(error).toEqual(wrong);
    expect((error as Error).message).toMatch(message);
  });

  const link = (copy: string, name: string): void => {
    renameSync(path.join(copy, name), path.join(copy, 'other'));
    symlinkSync('other', path.join(copy, name));
  };
  const pipe = (copy: string, name: string): void => {
    rmSync(path.join(copy, name));
    execFileSync('mkfifo', [path.join(copy, name)]);
  };

  it('is a path to nowhere', async () => {
    await expect(SnapshotReader.open(path.join(folder, 'nowhere'))).rejects.toEqual(wrong);
  });

  it('is one of another version of the format', async () => {
    const error = await finds('version', (copy) => {
      const body = readFileSync(path.join(copy, 'manifest.json'), 'utf8').replace('"version": 1', '"version": 2');
      const start = body.slice(0, body.lastIndexOf('  "digest"'));
      writeFileSync(path.join(copy, 'manifest.json'), `${start}  "digest": "${digestOf(start)}"\n}\n`);
    });
    expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_VERSION' });
  });
});

describe('a forged index', () => {
  const row = (table: GroupTable, group: number, changes: Partial<Row>): void =>
    table.set(group, { ...table.row(group), ...changes });

  it.each<[string, (table: GroupTable) => void]>([
    ['with overlapping groups', (table) => row(table, 5, { offset: table.offset(0) + 1 })],
    [
      'with two groups in one place',
      (table) =>
        row(table, 5, { offset: table.offset(0), contentCrc: table.contentCrc(0), storedCrc: table.storedCrc(0) }),
    ],
    ['with a group behind the end', (table) => row(table, 10, { offset: 2 ** 40 })],
    ['with an offset beyond all numbers', (table) => row(table, 10, { offset: 2 ** 63 })],
    [
      'with a duplicate of a later group',
      (table) => row(table, 3, { codec: GroupCodec.SAME, offset: 6, storedBytes: 0, storedCrc: 0 }),
    ],
    ['with a duplicate of itself', (table) => row(table, 6, { offset: 6 })],
    ['with a duplicate of a duplicate', (table) => table.set(8, table.row(6))],
    ['with a duplicate of a zero group', (table) => row(table, 6, { offset: 2, contentCrc: table.contentCrc(2) })],
    ['with a duplicate of another content', (table) => row(table, 6, { offset: 0 })],
    ['with a group of no parent', (table) => row(table, 2, { codec: GroupCodec.PARENT })],
    ['with a zero group that has data', (table) => row(table, 2, { storedBytes: 1 })],
    ['with a zero group of another content', (table) => row(table, 2, { contentCrc: 1 })],
    ['with an unknown codec', (table) => row(table, 2, { codec: 9 })],
    ['with a group that was never written', (table) => row(table, 2, { codec: GroupCodec.NONE })],
    ['with a short raw group', (table) => row(table, 0, { storedBytes: 4096 })],
    ['with a compressed group of 4 GiB', (table) => row(table, 1, { storedBytes: 2 ** 32 - 1 })],
    ['with a reserved field set', (table) => table.set(2, table.row(2), 1)],
  ])('%s is refused', async (_name, change) => {
    expect(await forged(({ table }) => change(table))).toEqual(wrong);
  });

  it('with a frame that grows beyond its group finds no room for it', async () => {
    // RFC 8878: a frame of blocks that each repeat one byte 128 KiB times, 2 GiB in all.
    const blocks = Array.from({ length: 16_000 }, (_, at) => (at === 15_999 ? 3 : 2) | (0x20000 << 3));
    const bomb = Buffer.from([
      0x28,
      0xb5,
      0x2f,
      0xfd,
      0,
      0x38,
      ...blocks.flatMap((b) => [b & 0xff, (b >> 8) & 0xff, b >> 16, 0]),
    ]);
    expect(bomb.length).toBeLessThan(GROUP_BYTES);
    const error = await finds('bomb', (copy) => {
      const file = (name: string) => path.join(copy, name);
      const manifest = structuredClone(decodeManifest(readFileSync(file('manifest.json')), 'manifest.json'));
      const table = new GroupTable(new Uint8Array(readFileSync(file('index')).subarray(32)));
      const at = manifest.parts.memory.sizeBytes;
      const fd = openSync(file('memory'), 'a');
      writeSync(fd, bomb);
      closeSync(fd);
      table.set(7, {
        codec: GroupCodec.ZSTD,
        offset: at,
        storedBytes: bomb.length,
        storedCrc: crcOf(bomb),
        contentCrc: 1,
      });
      const sizeBytes = at + bomb.length;
      const index = encodeIndex(table, sizeBytes);
      writeFileSync(file('index'), index);
      const parts = {
        ...manifest.parts,
        index: { sizeBytes: index.length, sha256: digestOf(index) },
        memory: { sizeBytes },
      };
      writeFileSync(file('manifest.json'), encodeManifest({ ...manifest, parts }));
    });
    expect(error).toMatchObject({ kind: 'decompress', group: 7 });
  });

  it('in a manifest whose sizes are others is refused', async () => {
    for (const sizeBytes of [0, 1, 2 ** 40]) {
      expect(await forged(({ manifest }) => (manifest.parts.memory = { sizeBytes }))).toEqual(wrong);
    }
    for (const memoryBytes of [4096, (GROUPS + 1) * GROUP_BYTES, 2 ** 40]) {
      expect(await forged(({ manifest }) => (manifest['memoryBytes'] = memoryBytes))).toEqual(wrong);
    }
  });
});

describe('an eager load', () => {
  it('ends when it is aborted, and wants memory of its size', async () => {
    const reader = await SnapshotReader.open(dir);
    const small = makeMemory(GROUP_BYTES);
    await expect(reader.loadAll(small)).rejects.toThrow(RangeError);
    small.close();
    const target = makeMemory(memory.sizeBytes);
    const aborted = reader.loadAll(target, { signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await reader.loadAll(target);
    expect(sameBytes(contentOf(target), contentOf(memory))).toBe(true);
    target.close();
    await reader.close();
    expect(() => reader.source()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  });

  it('gives what was saved over what was there', async () => {
    expect(sameBytes(await load(dir), contentOf(memory))).toBe(true);
  });
});

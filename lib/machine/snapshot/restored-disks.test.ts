import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DiskReference, diskReferenceState, memoryDisk, type BlockSource } from '../../vsp/index.js';
import { RestoredDisks } from './restored-disks.js';

const CLONE = '00000001-0000-4000-8000-000000000000';
const written = { id: 'd', readOnly: false };
const onlyRead = { id: 'd', readOnly: true };
const kept = { id: 'd', readOnly: false, copyOnWriteBytes: 4096 };

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'vivarium-restored-'));
  file = path.join(folder, 'disk.img');
  writeFileSync(file, new Uint8Array(65536));
});
afterEach(() => rmSync(folder, { recursive: true }));

function facts() {
  const { size, mtimeNs } = statSync(file, { bigint: true });
  return { path: file, fileBytes: Number(size), changedNs: mtimeNs };
}

const frozen = (id = 'd'): DiskReference => ({
  ...{ id, kind: 'frozen', generation: CLONE, sizeBytes: 65536 },
  frozen: { ...facts(), format: 'raw' },
});
const base = (kind = 'file'): DiskReference => ({
  ...{ id: 'd', kind: 'base' },
  base: { ...facts(), description: { kind, path: '/another' } },
});
const contents = (over: object): DiskReference => ({
  ...{ id: 'd', kind: 'contents', file: 'disk-d.contents', sizeBytes: 65536, fileBytes: 24 },
  ...{ sha256: '00', ...over },
});

const found = (
  references: DiskReference[],
  disk: typeof written & { copyOnWriteBytes?: number },
  overrides?: Record<string, BlockSource>,
): RestoredDisks =>
  RestoredDisks.of({ dir: folder, state: references.map((each) => diskReferenceState.save(each)) }, [disk], overrides);

describe('the disks of a snapshot', () => {
  it.each([
    ['nothing of a disk', () => found([], written), "nothing of the disk 'd'"],
    ['a disk that there is not', () => found([frozen(), frozen('e')], written), "'e', which its machine has not"],
    ['a disk twice', () => found([frozen(), frozen()], written), "twice to the data of the disk 'd'"],
    ['a named file for a disk that is written', () => found([base()], written), "of the kind 'base'"],
    [
      'changes over a named file for one',
      () => found([contents({ base: { description: { kind: 'file' }, path: file } })], written),
      "of the kind 'contents'",
    ],
    ['an image for a disk that is only read', () => found([frozen()], onlyRead), "of the kind 'frozen'"],
    ['an image for a disk with changes in memory', () => found([frozen()], kept), "of the kind 'frozen'"],
  ])('are refused: %s', (_name, look, why) => {
    const message = expect.stringContaining(why) as string;
    expect(look).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT', message }));
    expect(readdirSync(folder)).toEqual(['disk.img']);
  });

  it('stand on the file that was checked, and what is made is told', async () => {
    const made: string[] = [];
    const make = (disks: RestoredDisks) => disks.make({ folder, clone: CLONE, made });
    const read = await make(found([base()], onlyRead));
    expect(read.get('d')!.source!.describe()).toEqual({ kind: 'file', path: file });
    expect(made).toEqual([]);
    await make(found([frozen()], written));
    expect(made).toEqual([`${file}.${CLONE}.qcow2`]);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it('need an override where a reference is not enough, and make nothing for a disk that has one', async () => {
    const made: string[] = [];
    const make = (disks: RestoredDisks) => disks.make({ folder, clone: CLONE, made });
    const shared = found([base('shared')], onlyRead);
    await expect(make(shared)).rejects.toMatchObject({
      ...{ code: 'ERR_SNAPSHOT', cure: expect.stringContaining("disks: { 'd'") as string },
    });
    const overrides = { d: memoryDisk(65536) };
    expect((await make(found([frozen()], written, overrides))).get('d')).toEqual({});
    expect((await make(found([], written, overrides))).size).toBe(0);
    expect([made, readdirSync(folder)]).toEqual([[], ['disk.img']]);
  });
});

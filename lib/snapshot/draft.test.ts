import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { AddressSpace } from '../memory/index.js';
import { Draft, sweep } from './draft.js';
import { makeMemory, scratchFolder } from './testing.js';
import { SnapshotWriter } from './writer.js';

let folder: string;
let remove: () => void;
let memory: AddressSpace;
beforeEach(() => {
  ({ folder, remove } = scratchFolder());
  memory = makeMemory(65_536);
});
afterEach(() => {
  memory.close();
  remove();
});
const dir = () => path.join(folder, 'snap');
const old = (name: string) => utimesSync(path.join(folder, name), 1, 1);

/** A draft of `name`, as whoever ended in the middle leaves it. */
function left(name: string, isOld: boolean, files = ['memory']): string {
  const made = path.join(folder, name);
  mkdirSync(made);
  for (const file of files) writeFileSync(path.join(made, file), '');
  if (isOld) old(name);
  return name;
}

/** Such a name of this process's. */
const own = (): string => path.basename(Draft.pathFor(dir()));

it('sweeps what a process that is gone has left, however new it is, and nothing of another snapshot', async () => {
  const [, pid, start] = /partial-(\d+)-(\d+)/.exec(own())!;
  left(own().replace(`-${pid}-${start}-`, `-${pid}-1-`), false);
  left(own().replace(`-${pid}-${start}-`, '-4194305-1-'), false, []);
  const other = left(path.basename(Draft.pathFor(path.join(folder, 'other'))).replace(`-${start}-`, '-1-'), true);
  await sweep(dir());
  expect(readdirSync(folder)).toEqual([other]);
});

it('sweeps what a Worker of a living process has left, but not what may be under way', async () => {
  left(own(), true);
  const begun = left(own(), false);
  const without = left(own(), true, []);
  const writer = await SnapshotWriter.create(dir(), { memory });
  const written = path.basename(writer.draftFolder);
  old(written);
  await sweep(dir());
  expect(readdirSync(folder).sort()).toEqual([begun, without, written].sort());
  await writer.writeGroups('all');
  await writer.commit({ state: [], config: {} });
});

it('knows drafts of another boot or namespace by their lock alone', async () => {
  const elsewhere = (): string => own().replace(/-[0-9a-f]{12}-(\d+)$/, '-0123456789ab-$1');
  left(elsewhere(), true);
  const begun = left(elsewhere(), false);
  await sweep(dir());
  expect(readdirSync(folder)).toEqual([begun]);
});

it('says that there is no folder to put a snapshot into', async () => {
  const nowhere = path.join(folder, 'none');
  await expect(sweep(path.join(nowhere, 'snap'))).rejects.toMatchObject({
    code: 'ERR_SNAPSHOT',
    message: `${path.join(nowhere, 'snap')} can't be made: there is no folder ${nowhere}`,
    cure: `mkdir -p ${nowhere}`,
  });
});

/**
 * Each call by which a snapshot is written, or a parent is deleted, fails once, one after the other: there is a typed error that
 * names the file, all that was there is whole and as it was, and nothing else is left. Real calls of a child process fail
 * (test/lib/disk-faults.c), so that none can be forgotten; it holds each folder that it leaves against all checksums.
 */
import path from 'node:path';
import { expect, it } from 'vitest';
import { type Attempt, runWithDiskFaults } from '../lib/disk-faults.js';

/** Whoever asks for these has another way. */
const DISPENSABLE = ['fallocate', 'copy_file_range'];

/** The files of drafts without their folder. */
const fileOf = (file: string): string => file.replace(/^\.(\w+)\.partial-[-0-9a-f]+/, '$1');
const callOf = ({ failed }: Attempt): string => `${failed!.call} ${fileOf(failed!.file)}`;

/** All attempts but the last, at which nothing failed. */
async function attempts(scene: 'save' | 'delete', errno: string): Promise<Attempt[]> {
  const all = await runWithDiskFaults<Attempt[]>('snapshot-faults.mjs', { scene, errno });
  const last = all.pop()!;
  expect([last.failed, last.error]).toEqual([undefined, undefined]);
  expect(last.left).toEqual(scene === 'save' ? ['base', 'snap'] : ['child']);
  for (const attempt of all) {
    const { failed, error } = attempt;
    const which = callOf(attempt);
    if (error === undefined) expect(DISPENSABLE, which).toContain(failed!.call);
    else {
      expect([error.code, error.errno], which).toEqual(['ERR_SYSTEM', errno]);
      expect(error.message, which).toContain(path.basename(fileOf(failed!.file)));
    }
  }
  return all;
}

it.each(['EIO', 'ENOSPC', 'EDQUOT'])('%s at each call of a save leaves its parent, and nothing else', async (errno) => {
  const all = await attempts('save', errno);
  const parts = ['index', 'state', 'access', 'manifest.json'];
  expect(new Set(all.map(callOf))).toEqual(
    new Set([
      ...['mkdir snap', 'open snap/memory', 'pwritev snap/memory', 'fallocate snap/memory'],
      ...['ftruncate snap/memory', 'fdatasync snap/memory'],
      ...parts.flatMap((part) => ['open', 'pwrite', 'fsync'].map((call) => `${call} snap/${part}`)),
      ...['fsync snap', 'renameat2 snap', 'fsync '],
    ]),
  );
  for (const attempt of all) expect(attempt.isAsBefore, callOf(attempt)).toBe(attempt.error !== undefined);
});

it('EIO at each call of a delete leaves the snapshot, and its child whole', async () => {
  const all = await attempts('delete', 'EIO');
  const calls = all.map(callOf);
  for (const call of ['pwrite child/memory', 'fsync child/manifest.json', 'renameat2 child']) {
    expect(calls).toContain(call);
  }
  // Once the child needs it no more.
  expect(calls.slice(-3)).toEqual(['fsync ', 'rename base', 'fsync ']);
  for (const [index, { error, left, isAsBefore }] of all.entries()) {
    if (error === undefined) continue;
    expect([left, isAsBefore], calls[index]).toEqual([['base', 'child'], index < all.length - 2]);
  }
});

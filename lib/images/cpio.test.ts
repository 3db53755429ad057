/** The archive's bytes, and what busybox's cpio reads back out of it. */
import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { busybox } from './busybox.js';
import { cpioArchive, type CpioEntry } from './cpio.js';

/** The fields of the member at `offset`, as numbers, with name and data. */
function member(archive: Uint8Array, offset: number) {
  const bytes = Buffer.from(archive);
  expect(bytes.toString('latin1', offset, offset + 6)).toBe('070701');
  const fields = Array.from({ length: 13 }, (_, index) => {
    const at = offset + 6 + index * 8;
    return parseInt(bytes.toString('latin1', at, at + 8), 16);
  });
  const [, mode, , , , , sizeBytes = 0, , , rdevMajor, rdevMinor, nameSizeBytes = 0] = fields;
  const name = bytes.toString('utf8', offset + 110, offset + 110 + nameSizeBytes - 1);
  const dataAt = Math.ceil((offset + 110 + nameSizeBytes) / 4) * 4;
  const data = bytes.subarray(dataAt, dataAt + sizeBytes);
  return { fields, mode, rdevMajor, rdevMinor, name, data, next: Math.ceil((dataAt + sizeBytes) / 4) * 4 };
}

function members(archive: Uint8Array) {
  const all = [];
  for (let offset = 0; ;) {
    const found = member(archive, offset);
    if (found.name === 'TRAILER!!!') {
      expect(found.next).toBe(archive.length);
      return all;
    }
    all.push(found);
    offset = found.next;
  }
}

const TREE: CpioEntry[] = [
  { path: 'init', type: 'file', mode: 0o755, data: Buffer.from('#!/bin/sh\n') },
  { path: 'a/b/c', type: 'file', data: Buffer.from('12345') },
  { path: 'a/link', type: 'symlink', target: '/init' },
  { path: 'a/empty', type: 'file', data: new Uint8Array(0) },
  { path: 'dev/console', type: 'character', major: 5, minor: 1 },
  { path: 'tmp', type: 'directory', mode: 0o1777 },
];

describe('cpioArchive', () => {
  it('is a trailer alone when it is empty', () => {
    const archive = cpioArchive([]);
    expect(archive.length).toBe(124);
    expect(members(archive)).toEqual([]);
  });

  it('lays out one file exactly', () => {
    const archive = Buffer.from(cpioArchive([{ path: 'ab', type: 'file', data: Buffer.from('xyz') }]));
    const fields = ['00000001', '000081A4', '00000000', '00000000', '00000001', '386D4380', '00000003'];
    fields.push('00000000', '00000000', '00000000', '00000000', '00000003', '00000000');
    expect(archive.toString('latin1', 0, 120)).toBe(`070701${fields.join('')}ab\0\0\0\0xyz\0`);
  });

  it('gives types, modes, device numbers and data back', () => {
    const found = members(cpioArchive(TREE));
    expect(found.map(({ name, mode }) => [name, mode?.toString(8)])).toEqual([
      ['init', '100755'],
      ['a', '40755'],
      ['a/b', '40755'],
      ['a/b/c', '100644'],
      ['a/link', '120777'],
      ['a/empty', '100644'],
      ['dev', '40755'],
      ['dev/console', '20600'],
      ['tmp', '41777'],
    ]);
    expect(found[4]?.data.toString()).toBe('/init');
    expect([found[7]?.rdevMajor, found[7]?.rdevMinor]).toEqual([5, 1]);
    expect(new Set(found.map(({ fields }) => fields[0])).size).toBe(found.length);
    expect(new Set(found.map(({ fields }) => fields[5])).size).toBe(1);
  });

  it('starts every member at a multiple of four, whatever the lengths', () => {
    for (let nameBytes = 1; nameBytes <= 5; nameBytes++) {
      for (let dataBytes = 0; dataBytes <= 5; dataBytes++) {
        const archive = cpioArchive([
          { path: 'n'.repeat(nameBytes), type: 'file', data: Buffer.alloc(dataBytes, 0x41) },
          { path: 'last', type: 'directory' },
        ]);
        expect(members(archive).map(({ name, data }) => [name, data.length])).toEqual([
          ['n'.repeat(nameBytes), dataBytes],
          ['last', 0],
        ]);
      }
    }
  });

  it('gives the same bytes for the same tree', () => {
    expect(Buffer.compare(cpioArchive(TREE), cpioArchive(TREE))).toBe(0);
  });

  it('counts bytes of names, not characters', () => {
    expect(members(cpioArchive([{ path: 'grün/ß', type: 'directory' }])).map(({ name }) => name)).toEqual([
      'grün',
      'grün/ß',
    ]);
  });

  it.each(['', '/abs', 'a//b', '../up', 'a/./b', 'a/', 'nul\0', 'x'.repeat(4096)])('refuses the path %j', (path) => {
    expect(() => cpioArchive([{ path, type: 'directory' }])).toThrow(RangeError);
  });

  it('refuses a path that stands there twice, also when it was made in between', () => {
    expect(() => cpioArchive([...TREE, { path: 'a/b', type: 'directory' }])).toThrow(/twice/);
  });

  it('is read by busybox', async (context) => {
    const { path } = await busybox().catch((error: unknown) => context.skip(String(error)));
    const listed = execFileSync(path, ['cpio', '-it'], {
      input: cpioArchive(TREE),
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    expect(listed.toString().trim().split('\n')).toEqual(members(cpioArchive(TREE)).map(({ name }) => name));
  });
});

import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkDisk, parseDisks } from './disk-option.js';

describe('parseDisks', () => {
  it('reads path, options in any order, and makes ids', () => {
    expect(
      parseDisks([
        'a.img',
        'b.img,id=data,ro',
        'c.qcow2,ro',
        'd,e.img,format=qcow2',
        'f.qcow2,format=raw,bps=10M,iops=500',
      ]),
    ).toEqual([
      { path: 'a.img', id: 'disk0', readOnly: false, format: 'raw' },
      { path: 'b.img', id: 'data', readOnly: true, format: 'raw' },
      { path: 'c.qcow2', id: 'disk2', readOnly: true, format: 'qcow2' },
      { path: 'd,e.img', id: 'disk3', readOnly: false, format: 'qcow2' },
      {
        path: 'f.qcow2',
        id: 'disk4',
        readOnly: false,
        format: 'raw',
        limits: { bytesPerSecond: 10_485_760, operationsPerSecond: 500 },
      },
    ]);
  });

  it.each([
    ['', /name of a file is wanted/],
    [',ro', /name of a file is wanted/],
    ['a.img,id=a/b', /'a\/b' is no id/],
    ['a.img,bps=much', /bps: 'much' is no number of bytes a second/],
    ['a.img,iops=0', /iops: '0' is no number/],
    ['a.img,format=vmdk', /'vmdk' is none of raw, qcow2/],
  ])('refuses %j', (text, message) => {
    expect(() => parseDisks([text])).toThrow(message);
  });

  it('refuses an id that comes twice', () => {
    expect(() => parseDisks(['a.img,id=x', 'b.img,id=x'])).toThrow(/two disks have the id 'x'/);
  });
});

describe('checkDisk', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'folder'));
  writeFileSync(join(folder, 'empty'), '');
  writeFileSync(join(folder, 'disk'), new Uint8Array(512));
  const check = (path: string) => checkDisk({ path, id: 'a', readOnly: false, format: 'raw' }, folder, false);

  it('gives the absolute path of a file', () => {
    expect(check('disk')).toBe(join(folder, 'disk'));
  });

  it.each([
    ['missing', /--disk missing: there is no such file/],
    ['folder', /is a directory/],
    ['empty', /is empty/],
    ['disk/below', /there is no such file/],
    ['/dev/null', /neither a file nor a block device/],
  ])('refuses %s and names the cure', (path, message) => {
    expect(() => check(path)).toThrow(
      expect.objectContaining({ code: 'ERR_DISK_IMAGE', message: expect.stringMatching(message) as string }),
    );
  });

  it('tells a disk that may only be read', (context) => {
    if (process.getuid?.() === 0) context.skip('root may write to every file');
    chmodSync(join(folder, 'disk'), 0o400);
    expect(() => check('disk')).toThrow(/may not be written/);
  });
});

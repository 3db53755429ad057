import { describe, expect, it } from 'vitest';
import { fileDisk } from '../vsp/index.js';
import { checkDisks } from './disk-options.js';

const backend = fileDisk('root.img');

describe('checkDisks', () => {
  it('completes what is left out', () => {
    expect(
      checkDisks([
        { id: 'root', backend },
        { id: 'data', backend, copyOnWrite: '1MiB' },
      ]),
    ).toEqual([
      { id: 'root', backend, readOnly: false, copyOnWriteBytes: undefined },
      { id: 'data', backend, readOnly: false, copyOnWriteBytes: 1024 * 1024 },
    ]);
  });

  it.each([
    ['no list', {}, TypeError, /disks: an array/],
    ['a path', ['root.img'], TypeError, /disks\[0\]: \{ id, backend \}/],
    ['a misspelled option', [{ id: 'a', backend, readonly: true }], TypeError, /did you mean 'readOnly'/],
    [
      'limits that are none',
      [{ id: 'a', backend, limits: { bytesBurst: 1 } }],
      RangeError,
      /disks\[0\].limits.bytesBurst/,
    ],
    ['no id', [{ backend }], TypeError, /disks\[0\].id/],
    ['an id with a slash', [{ id: 'a/b', backend }], TypeError, /is no id/],
    [
      'an id twice',
      [
        { id: 'a', backend },
        { id: 'a', backend },
      ],
      RangeError,
      /'a' is the id of another device too/,
    ],
    ['a path as backend', [{ id: 'a', backend: 'root.img' }], TypeError, /such as fileDisk/],
    ['both kinds of no writes', [{ id: 'a', backend, readOnly: true, copyOnWrite: 1 }], RangeError, /no sense/],
    [
      'more than the bus holds',
      Array.from({ length: 32 }, (_, n) => ({ id: `d${n}`, backend })),
      RangeError,
      /from 0 to 31/,
    ],
  ])('refuses %s', (_, disks, kind, message) => {
    expect(() => checkDisks(disks)).toThrow(kind);
    expect(() => checkDisks(disks)).toThrow(message);
  });
});

import { describe, expect, it } from 'vitest';
import { memoryDisk, networkSwitch } from '../vsp/index.js';
import { checkNics } from './nic-options.js';

const backend = networkSwitch('lan');

describe('checkNics', () => {
  it('completes what is left out', () => {
    expect(
      checkNics([
        { id: 'net0', backend },
        { id: 'net1', backend, mac: '02:00:00:00:00:0A', mtuBytes: 1400, limits: { bytesPerSecond: 1e6 } },
      ]),
    ).toEqual([
      { id: 'net0', backend, mac: undefined, mtuBytes: undefined },
      {
        ...{ id: 'net1', backend, mac: 0x02000000000a, mtuBytes: 1400 },
        limits: { send: { bytesPerSecond: 1e6 }, receive: { bytesPerSecond: 1e6 } },
      },
    ]);
  });

  it.each([
    ['no list', {}, TypeError, /nics: an array/],
    ['a name', ['lan'], TypeError, /nics\[0\]: \{ id, backend \}/],
    ['a misspelled option', [{ id: 'a', backend, macs: '' }], TypeError, /did you mean 'mac'/],
    ['no id', [{ backend }], TypeError, /nics\[0\].id/],
    ['a disk as backend', [{ id: 'a', backend: memoryDisk('1MiB') }], TypeError, /such as networkSwitch/],
    ['a number as address', [{ id: 'a', backend, mac: 2 }], TypeError, /nics\[0\].mac: 2 is no address/],
    ['half an address', [{ id: 'a', backend, mac: '02:00:00' }], TypeError, /"02:00:00" is no address/],
    ['the address of a group', [{ id: 'a', backend, mac: '01:00:5e:00:00:01' }], RangeError, /of a group/],
    ['the address of all', [{ id: 'a', backend, mac: 'ff:ff:ff:ff:ff:ff' }], RangeError, /of a group/],
    ['the address of nobody', [{ id: 'a', backend, mac: '00:00:00:00:00:00' }], RangeError, /of nobody/],
    [
      'limits that are none',
      [{ id: 'a', backend, limits: { send: { bytesPerSecond: 0 } } }],
      RangeError,
      /nics\[0\].limits.send/,
    ],
    ['an MTU that is none', [{ id: 'a', backend, mtuBytes: 67 }], RangeError, /nics\[0\].mtuBytes/],
    [
      'an address twice',
      [
        { id: 'a', backend, mac: '02:00:00:00:00:0a' },
        { id: 'b', backend, mac: '02:00:00:00:00:0A' },
      ],
      RangeError,
      /nics\[1\].mac: 02:00:00:00:00:0A is the address of another nic too/,
    ],
    [
      'an id twice',
      [
        { id: 'a', backend },
        { id: 'a', backend },
      ],
      RangeError,
      /'a' is the id of another device too/,
    ],
    [
      'more than the bus holds',
      Array.from({ length: 32 }, (_, n) => ({ id: `n${n}`, backend })),
      RangeError,
      /from 0 to 31/,
    ],
  ])('refuses %s', (_, nics, kind, message) => {
    expect(() => checkNics(nics)).toThrow(kind);
    expect(() => checkNics(nics)).toThrow(message);
  });
});

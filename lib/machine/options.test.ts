import { describe, expect, it } from 'vitest';
import { totalmem } from 'node:os';
import { checkMachineOptions, checkMemory } from './options.js';

const boot = { flat: new Uint8Array([0xf4]), address: 0x1000, mode: 'real16' } as const;
const check = (options: object) => checkMachineOptions({ boot, ...options });

describe('checkMachineOptions', () => {
  it('completes what is left out', () => {
    expect(check({})).toMatchObject({
      name: 'vm',
      cpus: 1,
      memoryBytes: 256 * 1024 * 1024,
      debugExit: false,
      onReset: 'end',
      memoryBacking: 'anonymous',
    });
  });

  it.each([
    ['a misspelled option', { memry: '1M' }, TypeError, /unknown option 'memry'; did you mean 'memory'/],
    ['no CPU', { cpus: 0 }, RangeError, /cpus: 0/],
    ['half a CPU', { cpus: 1.5 }, RangeError, /cpus: 1.5/],
    ['CPUs as text', { cpus: '2' }, TypeError, /cpus/],
    ['no memory', { memory: 0 }, RangeError, /memory/],
    ['one byte', { memory: 1 }, RangeError, /memory: 1 bytes is less than 1 MiB/],
    ['an odd size', { memory: 1024 * 1024 + 1 }, RangeError, /not a multiple of 4096/],
    [
      'more than the host has',
      { memory: (Math.ceil(totalmem() / 4096) + 1) * 4096 },
      RangeError,
      /more than this host has/,
    ],
    ['no size at all', { memory: 'lots' }, TypeError, /'lots' is no size/],
    ['a bad name', { name: 'a b' }, TypeError, /name/],
    ['no boot', { boot: undefined }, TypeError, /boot/],
    ['an empty boot', { boot: {} }, TypeError, /boot/],
    ['a misspelled boot option', { boot: { kernel: 'x', cmdlin: '' } }, TypeError, /did you mean 'cmdline'/],
    ['a kernel that is no path', { boot: { kernel: 7 } }, TypeError, /boot.kernel/],
    [
      'an entry that is none',
      { boot: { kernel: 'x', entry: 'PVH' } },
      TypeError,
      /boot.entry: "PVH" is none of 'auto'/,
    ],
    ['a cache that is no path', { boot: { kernel: 'x', cacheDir: 1 } }, TypeError, /boot.cacheDir/],
    ['modules that are no list', { boot: { multiboot: 'x', modules: 'a.img' } }, TypeError, /boot.modules: an array/],
    ['a module without a path', { boot: { multiboot: 'x', modules: [{}] } }, TypeError, /boot.modules\[0\].path/],
    ['a multiboot line that is no text', { boot: { multiboot: 'x', cmdline: 1 } }, TypeError, /boot.cmdline/],
    ['a command line with NUL', { boot: { kernel: 'x', cmdline: 'a\0b' } }, TypeError, /NUL/],
    ['an unknown mode', { boot: { ...boot, mode: 'real32' } }, TypeError, /boot.mode/],
    ['a negative address', { boot: { ...boot, address: -1 } }, RangeError, /boot.address/],
    ['an unknown reset policy', { onReset: 'explode' }, TypeError, /onReset/],
  ])('refuses %s', (_, options, type, message) => {
    expect(() => check(options)).toThrow(type);
    expect(() => check(options)).toThrow(message);
  });

  it('takes sizes as the contract writes them', () => {
    expect(checkMemory('256MiB')).toBe(256 * 1024 * 1024);
    expect(checkMemory('1G')).toBe(1024 ** 3);
  });
});

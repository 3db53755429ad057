import { describe, expect, it } from 'vitest';
import { checkMachineOptions, type MachineOptions } from '../options.js';
import { loadConfig, pitOf, saveConfig } from './saved-config.js';

const flat = { flat: Uint8Array.of(0xf4), address: 0x1000, mode: 'real16' } as const;
const save = (options: MachineOptions) => saveConfig(checkMachineOptions(options));

describe('a saved configuration', () => {
  it.each<[string, MachineOptions]>([
    ['a flat image', { boot: flat, cpus: 2, memory: '2MiB', debugExit: true, onReset: 'restart', name: 'x.1' }],
    ['a kernel', { boot: { kernel: 'vmlinuz', initrd: ['a', Uint8Array.of(1)], cmdline: 'quiet', entry: 'pvh' } }],
    ['a multiboot image', { boot: { multiboot: 'kernel.elf', modules: ['a', { path: 'b', cmdline: 'c' }] } }],
    [
      'options of the PIT',
      { boot: flat, pit: { policy: 'discard', feedback: { gpa: 0x46c, widthBytes: 4, rateHz: 18 } } },
    ],
  ])('of a machine from %s gives the same machine', (_what, options) => {
    const config = checkMachineOptions(options);
    const saved = loadConfig(saveConfig(config));
    const { name, cpus, memoryBytes, memoryBacking, debugExit, onReset, boot, pit } = config;
    expect(saved).toMatchObject({ name, cpus, memoryBytes, memoryBacking, debugExit, onReset, boot });
    expect(pitOf(saved)).toEqual(pit);
  });

  it('leaves out a large image, and says what kind it was', () => {
    const saved = loadConfig(save({ boot: { ...flat, flat: new Uint8Array(5 * 2 ** 20) }, memory: '16MiB' }));
    expect(saved).toMatchObject({ kind: 'flat' });
    expect(saved.boot).toBeUndefined();
  });

  it("leaves out a policy of the user's own", () => {
    const saved = loadConfig(save({ boot: flat, pit: { policy: () => ({ mode: 'nominal' }), enterMs: 7 } } as never));
    expect(pitOf(saved)).toEqual({ enterMs: 7 });
  });

  it.each<[string, object]>([
    ['no CPU', { cpus: 0 }],
    ['a part of a page', { memoryBytes: 2 ** 20 + 1 }],
    ['a name with a slash', { name: '../x' }],
    ['a boot image of two kinds', { boot: { ...flat, kernel: 'x' } }],
    ['a policy that there is not', { pit: { policy: 'sometimes' } }],
  ])('is refused with %s', (_what, wrong) => {
    const part = save({ boot: flat });
    const damaged = { ...part, data: { ...(part.data as object), ...wrong } };
    expect(() => loadConfig(damaged)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT' }));
  });
});

/** The order in which modules load, out of modules.dep as kmod and as busybox write it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ModuleIndex, readModule } from './modules.js';

const V = 'kernel/drivers/virtio';
/** kmod's: everything that is needed, nearest first, so that loading goes from right to left. */
const KMOD = `${V}/virtio.ko:
${V}/virtio_ring.ko: ${V}/virtio.ko
${V}/virtio_pci_modern_dev.ko:
${V}/virtio_pci.ko: ${V}/virtio_pci_modern_dev.ko ${V}/virtio_ring.ko ${V}/virtio.ko
kernel/drivers/char/hw_random/virtio-rng.ko.xz: ${V}/virtio_ring.ko ${V}/virtio.ko
`;
/** busybox's: everything that is needed, in no order. */
const BUSYBOX = KMOD.replace(
  `${V}/virtio_pci_modern_dev.ko ${V}/virtio_ring.ko ${V}/virtio.ko`,
  `${V}/virtio_ring.ko ${V}/virtio.ko ${V}/virtio_pci_modern_dev.ko`,
);

const names = (index: ModuleIndex, ...wanted: string[]): string[] => index.loadOrder(wanted).map(({ name }) => name);

describe('ModuleIndex', () => {
  it.each([
    ['kmod', KMOD],
    ['busybox', BUSYBOX],
  ])('loads what is needed first, once each (%s)', (_, dep) => {
    const order = names(new ModuleIndex(dep, ''), 'virtio_pci', 'virtio_rng');
    expect([...order].sort()).toEqual(['virtio', 'virtio_pci', 'virtio_pci_modern_dev', 'virtio_ring', 'virtio_rng']);
    const before = (first: string, second: string) => expect(order.indexOf(first)).toBeLessThan(order.indexOf(second));
    before('virtio', 'virtio_ring');
    before('virtio_ring', 'virtio_pci');
    before('virtio_pci_modern_dev', 'virtio_pci');
    before('virtio_ring', 'virtio_rng');
  });

  it('takes - and _ in names as the same, and gives the path as it is written', () => {
    const index = new ModuleIndex(KMOD, '');
    expect(index.loadOrder(['virtio-rng']).at(-1)).toEqual({
      name: 'virtio_rng',
      path: 'kernel/drivers/char/hw_random/virtio-rng.ko.xz',
    });
  });

  it('knows what is built in, and does not load it', () => {
    const index = new ModuleIndex('a/x.ko: a/y.ko\n', 'kernel/a/y.ko\nkernel/fs/ext4/ext4.ko\n');
    expect(index.has('ext4')).toBe(true);
    expect(index.has('x')).toBe(true);
    expect(index.has('z')).toBe(false);
    expect(names(index, 'ext4', 'x', 'z')).toEqual(['x']);
  });

  it('comes to an end when modules need each other', () => {
    const index = new ModuleIndex('a.ko: b.ko\nb.ko: a.ko\n', '');
    expect(names(index, 'a').sort()).toEqual(['a', 'b']);
  });

  it('reads empty and damaged text as no modules', () => {
    expect(names(new ModuleIndex('', ''), 'a')).toEqual([]);
    expect(names(new ModuleIndex('no colon here\n\0\n', '\n\n'), 'a')).toEqual([]);
  });
});

describe('readModule', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vivarium-modules-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it('gives a plain module as it is', async () => {
    const path = join(folder, 'a.ko');
    writeFileSync(path, 'bytes');
    expect(Buffer.from(await readModule(path)).toString()).toBe('bytes');
  });

  it('has busybox unpack the others, and says what it said when that fails', async () => {
    const path = join(folder, 'a.ko.xz');
    writeFileSync(path, 'no xz');
    // A program that stands for busybox: it prints its applet's name, and fails for the second file.
    const tool = join(folder, 'tool');
    writeFileSync(tool, '#!/bin/sh\ncase $2 in *bad*) echo damaged >&2; exit 1;; esac\nprintf "%s" "$1"\n', {
      mode: 0o755,
    });
    expect(Buffer.from(await readModule(path, tool)).toString()).toBe('xzcat');
    await expect(readModule(join(folder, 'bad.ko.gz'), tool)).rejects.toThrow(/damaged/);
  });

  it('refuses a compression that busybox has no applet for', async () => {
    await expect(readModule(join(folder, 'a.ko.zst'), '/bin/false')).rejects.toMatchObject({ code: 'ERR_SETUP' });
  });
});

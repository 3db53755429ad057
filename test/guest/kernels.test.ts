/** Kernel files of every kind to userspace: vmlinux by both its entries, the generic kernel; and what is cut short. */
import { copyFileSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VmmError } from '../../lib/base/errors.js';
import { parseBzImage } from '../../lib/boot/bzimage.js';
import { openImage } from '../../lib/boot/errors.js';
import { bootKernel } from '../../lib/boot/load-kernel.js';
import type { ResolvedShape } from '../../lib/boot/types.js';
import { unpackKernel } from '../../lib/boot/vmlinux-cache.js';
import { defaultInitramfs } from '../../lib/images/initramfs.js';
import { defaultKernel, genericKernel, type KernelImage } from '../../lib/images/kernel.js';
import { FakeGuestMemory } from '../../lib/memory/fake.js';
import { bootByScript } from '../lib/boot-script.js';
import { vivarium } from '../lib/command.js';

/** type_of_loader of Linux's own PVH entry (arch/x86/platform/pvh/enlighten.c). */
const PVH_LOADER = 0xb0;

const folder = mkdtempSync(join(tmpdir(), 'vivarium-kernels-'));
const vmlinux = join(folder, 'vmlinux');
let kernel: KernelImage;
let initrd: string;

beforeAll(async () => {
  kernel = await defaultKernel();
  initrd = await defaultInitramfs({ kernel });
  const file = openImage('kernel', kernel.path);
  try {
    const { payload } = parseBzImage(file);
    if (payload === undefined) throw new Error('the default kernel names no payload');
    const unpacked = await unpackKernel(file, payload, undefined);
    if (unpacked === undefined) throw new Error('this host cannot unpack the default kernel');
    writeFileSync(vmlinux, unpacked.file.read(0, unpacked.file.sizeBytes));
  } finally {
    file.close();
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('userspace is reached', () => {
  it('from a vmlinux, by its 64-bit entry', async () => {
    const script = 'uname -r; cat /proc/sys/kernel/bootloader_type';
    const { status, stdout, stderr } = await vivarium(['run', '--kernel', vmlinux, '--', 'sh', '-c', script]);
    const [release, loader] = stdout.toString().split('\n');
    expect(release, stderr).toBe(kernel.release);
    expect(Number(loader)).not.toBe(PVH_LOADER);
    expect(status).toBe(0);
  });

  it('from a vmlinux, by its PVH entry', async () => {
    const seen = await bootByScript({ kernel: vmlinux, initrd, entry: 'pvh' });
    expect(seen).toMatchObject({ release: kernel.release, loader: PVH_LOADER, reason: 'poweroff' });
  });

  it('by a kernel that was paused and resumed at random moments of its boot', async () => {
    const seen = await bootByScript({ kernel: kernel.path, initrd, pauses: true });
    expect(seen).toMatchObject({ release: kernel.release, moved: 0, reason: 'poweroff' });
    expect(seen.paused).toBeGreaterThanOrEqual(3);
  });

  it("by Debian's generic kernel, with the initramfs that is built for it", async () => {
    const generic = await genericKernel();
    const options = ['--kernel', generic.path, '--initrd', await defaultInitramfs({ kernel: generic })];
    const { status, stdout, stderr } = await vivarium(['run', '--quiet', ...options], {
      stdin: 'echo "<$(uname -r)>"; modprobe virtio_blk && grep -c ^virtio_blk /proc/modules; poweroff\n',
    });
    expect(stdout.toString(), stderr).toContain(`<${generic.release}>`);
    expect(stdout.toString()).toMatch(/\n1\r?\n/);
    expect(generic.release).toMatch(/^\d+\.\d+\.\S*-amd64$/);
    expect(generic.release).not.toContain('cloud');
    expect(status).toBe(0);
  });
});

describe('a kernel that was cut short', () => {
  it('at any 4 KiB boundary is refused by an error that names the file', async () => {
    const cut = join(folder, 'cut-vmlinuz');
    copyFileSync(kernel.path, cut);
    const wrong: string[] = [];
    const shape: ResolvedShape = {
      rsdpGpa: undefined,
      reserved: [],
      memoryIsZero: true,
      rngSeed: undefined,
      loadSegment: () => {
        throw new Error('a kernel that was cut short is loaded');
      },
    };
    let boundaries = 0;
    for (let size = Math.floor((statSync(cut).size - 1) / 4096) * 4096; size >= 0; size -= 4096, boundaries++) {
      truncateSync(cut, size);
      const memory = new FakeGuestMemory([{ gpa: 0, sizeBytes: 1 << 20 }]);
      const refusal: unknown = await bootKernel(memory, { kernel: cut }, shape).catch((error: unknown) => error);
      const isRight =
        refusal instanceof VmmError && refusal.code === 'ERR_KERNEL_IMAGE' && refusal.message.includes(cut);
      if (!isRight) wrong.push(`${size}: ${String(refusal)}`);
    }
    expect(wrong).toEqual([]);
    expect(boundaries).toBeGreaterThan(1000);
  });
});

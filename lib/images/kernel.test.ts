/** Finding a kernel of the machine, and the release in a bzImage's header. Debian's kernels are the guest tests'. */
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bzImageRelease, systemKernel } from './kernel.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vivarium-kernel-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The start of a bzImage whose kernel_version field points at `text`. */
function bzImage(text: string, options: { magic?: string; offset?: number; sizeBytes?: number } = {}): Buffer {
  const bytes = Buffer.alloc(options.sizeBytes ?? 0x4000);
  bytes.write(options.magic ?? 'HdrS', 0x202, 'latin1');
  bytes.writeUInt16LE(options.offset ?? 0x3000 - 0x200, 0x20e);
  bytes.write(`${text}\0`, 0x3000, 'latin1');
  return bytes;
}
const put = (name: string, bytes: Uint8Array): string => {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};

describe('bzImageRelease', () => {
  it('reads up to the first space', async () => {
    const path = put('k', bzImage('6.1.0-1-cloud-amd64 (debian@x) #1 SMP'));
    expect(await bzImageRelease(path)).toBe('6.1.0-1-cloud-amd64');
  });

  it.each([
    ['an empty file', Buffer.alloc(0)],
    ['a file that ends within the header', bzImage('6.1').subarray(0, 0x20f)],
    ['another magic', bzImage('6.1', { magic: 'HdrT' })],
    ['no version field', bzImage('6.1', { offset: 0 })],
    ['a version beyond the file', bzImage('6.1', { offset: 0xffff })],
    ['an empty version', bzImage('')],
  ])('finds none in %s', async (_, bytes) => {
    expect(await bzImageRelease(put('k', bytes))).toBeUndefined();
  });
});

describe('systemKernel', () => {
  it('takes the newest by number, not by letter', async () => {
    put('vmlinuz-6.9.0', bzImage('6.9.0 x'));
    put('vmlinuz-6.10.0', bzImage('6.10.0 x'));
    put('initrd.img-6.11.0', bzImage('6.11.0 x'));
    expect(await systemKernel(folder)).toMatchObject({ release: '6.10.0', source: 'system', key: 'system-6.10.0' });
  });

  it('passes over what is no bzImage and what dangles', async () => {
    put('vmlinuz-9', Buffer.from('text'));
    symlinkSync('nowhere', join(folder, 'vmlinuz-8'));
    put('vmlinuz-6.1.0', bzImage('6.1.0 x'));
    expect((await systemKernel(folder))?.path).toBe(join(folder, 'vmlinuz-6.1.0'));
  });

  it('passes over what this user may not read', async (context) => {
    context.skip(process.getuid?.() === 0, 'root may read all');
    chmodSync(put('vmlinuz-9', bzImage('9 x')), 0);
    expect(await systemKernel(folder)).toBeUndefined();
  });

  it('finds none in an empty folder, or without the folder', async () => {
    expect(await systemKernel(folder)).toBeUndefined();
    expect(await systemKernel(join(folder, 'none'))).toBeUndefined();
  });
});

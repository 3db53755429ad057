/** The raw addon: guest memory, its views, and who keeps a mapping alive. */
import { fstatSync, ftruncateSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { NativeMemory } from '../../lib/kvm/native.js';
import { makeRig } from '../lib/native-rig.mjs';

const rig = makeRig();
const { addon, runtime } = rig;
const MiB = 1024 * 1024;

describe('Memory', () => {
  it('is zeroed, and two views show the same bytes', () => {
    const memory = new addon.Memory({ sizeBytes: 4 * MiB, backing: 'anonymous', hugePages: true });
    const whole = new Uint8Array(memory.view(0, 4 * MiB));
    const part = new Uint8Array(memory.view(MiB, 4096));
    expect(memory.sizeBytes).toBe(4 * MiB);
    expect(memory.fd).toBe(-1);
    expect(whole.every((byte) => byte === 0)).toBe(true);
    whole[MiB + 7] = 0xaa;
    expect(part[7]).toBe(0xaa);
    memory.close();
  });

  it('has one bit of the dirty bitmap for each page, in whole words', () => {
    for (const [pages, bytes] of [
      [1, 8],
      [64, 8],
      [65, 16],
    ] as const) {
      const memory = new addon.Memory({ sizeBytes: pages * 4096, backing: 'anonymous', hugePages: false });
      expect(memory.dirtyBitmap().byteLength).toBe(bytes);
      memory.close();
    }
  });

  it('can be a memfd, which nobody resizes', () => {
    const memory = new addon.Memory({ sizeBytes: MiB, backing: 'memfd', hugePages: true });
    expect(fstatSync(memory.fd).size).toBe(MiB);
    expect(() => ftruncateSync(memory.fd, 4096)).toThrow(/EPERM/);
    expect(() => ftruncateSync(memory.fd, 2 * MiB)).toThrow(/EPERM/);
    new Uint8Array(memory.view(0, 4096))[0] = 1;
    memory.close();
    expect(memory.fd).toBe(-1);
  });

  it('may be larger than one view', () => {
    const sizeBytes = 6 * 1024 * MiB;
    const memory = new addon.Memory({ sizeBytes, backing: 'anonymous', hugePages: true });
    const last = new Uint8Array(memory.view(sizeBytes - 4096, 4096));
    last[4095] = 1;
    expect(memory.view(0, 2 ** 32 - 4096).byteLength).toBe(2 ** 32 - 4096);
    expect(() => memory.view(0, 2 ** 32 + 1)).toThrow(RangeError);
    memory.close();
  });

  it.each([
    ['no length', 0, 0, 0],
    ['all', 0, 8192, 8192],
    ['nothing at the end', 8192, 0, 0],
  ])('gives a view of %s', (_, offset, length, expected) => {
    const memory = new addon.Memory({ sizeBytes: 8192, backing: 'anonymous', hugePages: false });
    expect(memory.view(offset, length).byteLength).toBe(expected);
    memory.close();
  });

  it.each([
    ['one byte beyond the end', 8192, 1],
    ['an end beyond the end', 1, 8192],
    ['an offset beyond the end', 8193, 0],
    ['a sum that would wrap', 8192, 2 ** 53],
    ['a negative offset', -1, 1],
    ['a fraction', 0.5, 1],
  ])('refuses a view with %s', (_, offset, length) => {
    const memory = new addon.Memory({ sizeBytes: 8192, backing: 'anonymous', hugePages: false });
    expect(() => memory.view(offset, length)).toThrow(RangeError);
    memory.close();
  });

  it.each([
    ['size 0', { sizeBytes: 0, backing: 'anonymous', hugePages: false }, RangeError],
    ['a byte too many', { sizeBytes: 4097, backing: 'anonymous', hugePages: false }, RangeError],
    ['2^53', { sizeBytes: 2 ** 53, backing: 'anonymous', hugePages: false }, RangeError],
    ['an unknown backing', { sizeBytes: 4096, backing: 'file', hugePages: false }, TypeError],
    ['no choice of huge pages', { sizeBytes: 4096, backing: 'memfd' }, TypeError],
    ['no options', undefined, TypeError],
  ])('refuses %s', (_, options, type) => {
    expect(() => new addon.Memory(options as never)).toThrow(type);
  });

  it('says what the kernel refused', () => {
    // An address space of 47 bits holds fewer than eight such mappings beside everything else.
    const huge = { sizeBytes: 2 ** 44, backing: 'anonymous', hugePages: false } as const;
    const held: NativeMemory[] = [];
    const fill = () => {
      for (let count = 0; count < 8; count++) held.push(new addon.Memory(huge));
    };
    expect(fill).toThrow(expect.objectContaining({ kind: 'syscall', name: 'mmap', errno: 'ENOMEM' }) as Error);
    for (const memory of held) memory.close();
  });

  it('detaches every view when it is closed, and unmaps at once', async () => {
    await turn();
    const before = runtime.counts().mappings;
    const memory = new addon.Memory({ sizeBytes: MiB, backing: 'anonymous', hugePages: false });
    const views = Array.from({ length: 100 }, () => new Uint8Array(memory.view(0, MiB)));
    const bitmap = memory.dirtyBitmap();
    expect(runtime.counts().mappings).toBe(before + 2);
    memory.close();
    memory.close();
    expect(runtime.counts().mappings).toBe(before);
    expect(views.every((view) => view.length === 0)).toBe(true);
    expect(bitmap.byteLength).toBe(0);
    expect(memory.sizeBytes).toBe(0);
    expect(() => memory.view(0, 1)).toThrow(expect.objectContaining({ kind: 'closed', name: 'memory' }) as Error);
    expect(() => memory.dirtyBitmap()).toThrow(expect.objectContaining({ kind: 'closed' }) as Error);
  });

  it('lives on in a memory slot until that goes', () => {
    const before = runtime.counts().mappings;
    const { vm, memory, close } = rig.boot();
    const held = runtime.counts().mappings;
    memory.close();
    expect(runtime.counts().mappings).toBe(held - 1); // the bitmap
    const other = new addon.Memory({ sizeBytes: 4096, backing: 'anonymous', hugePages: false });
    vm.setMemorySlot(0, 0, 0, other, 0, 0);
    expect(runtime.counts().mappings).toBe(held);
    other.close();
    close();
    expect(runtime.counts().mappings).toBe(before);
  });
});

/** Telling a static program from a dynamic one by its ELF header. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isStaticX64 } from './busybox.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vivarium-busybox-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** An ELF64 header with program headers of the given types. */
function elf(types: readonly number[], change: (bytes: Buffer) => void = () => undefined): string {
  const bytes = Buffer.alloc(64 + 56 * types.length);
  bytes.writeUInt32BE(0x7f454c46, 0);
  bytes[4] = 2;
  bytes.writeUInt16LE(62, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(types.length, 56);
  types.forEach((type, index) => bytes.writeUInt32LE(type, 64 + 56 * index));
  change(bytes);
  const path = join(folder, 'program');
  writeFileSync(path, bytes);
  return path;
}

const PT_LOAD = 1;
const PT_INTERP = 3;

describe('isStaticX64', () => {
  it('goes by the interpreter', async () => {
    expect(await isStaticX64(elf([PT_LOAD, PT_LOAD]))).toBe(true);
    expect(await isStaticX64(elf([PT_LOAD, PT_INTERP]))).toBe(false);
    expect(await isStaticX64(process.execPath)).toBe(false);
  });

  it.each([
    ['another class', (bytes: Buffer) => bytes.writeUInt8(1, 4)],
    ['another processor', (bytes: Buffer) => bytes.writeUInt16LE(183, 18)],
    ['another magic', (bytes: Buffer) => bytes.writeUInt8(0, 0)],
    ['its table beyond the file', (bytes: Buffer) => bytes.writeBigUInt64LE(2n ** 63n, 32)],
    ['entries that are too small', (bytes: Buffer) => bytes.writeUInt16LE(8, 54)],
    ['more entries than the file holds', (bytes: Buffer) => bytes.writeUInt16LE(0xffff, 56)],
  ])('refuses a program with %s', async (_, change) => {
    expect(await isStaticX64(elf([PT_LOAD], change))).toBe(false);
  });

  it('refuses what is empty, a folder, or not there', async () => {
    const path = join(folder, 'empty');
    writeFileSync(path, '');
    expect(await isStaticX64(path)).toBe(false);
    expect(await isStaticX64(folder)).toBe(false);
    expect(await isStaticX64(join(folder, 'none'))).toBe(false);
  });
});

import type { FileHandle } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { AbortError } from './errors.js';
import { naming, systemError, writeAt } from './system-call.js';

it('writes on where a write was short', async () => {
  const file = new Uint8Array(20);
  const short = {
    write(bytes: Uint8Array, from: number, length: number, at: number) {
      const bytesWritten = Math.min(length, 3);
      file.set(bytes.subarray(from, from + bytesWritten), at);
      return Promise.resolve({ bytesWritten, buffer: bytes });
    },
  } as unknown as FileHandle;
  await writeAt(short, Uint8Array.of(1, 2, 3, 4, 5, 6, 7), 10);
  expect([...file.subarray(9, 18)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 0]);
});

it('names errors that Node has no name for, and leaves others as they are', async () => {
  const unknown = Object.assign(new Error("Unknown system error -122: Unknown system error -122, open '/x'"), {
    errno: -122,
    code: 'Unknown system error -122',
    syscall: 'open',
  });
  await expect(naming('/x', () => Promise.reject(unknown))).rejects.toMatchObject({
    code: 'ERR_SYSTEM',
    errno: 'EDQUOT',
    message: 'open: EDQUOT (/x)',
  });
  for (const other of [new TypeError('no path'), new AbortError(), 'text'])
    expect(systemError(other, '/x')).toBe(other);
  expect(await naming('/x', () => Promise.resolve(7))).toBe(7);
});

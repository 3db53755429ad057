import type { FileHandle } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { writeAt } from './files.js';

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

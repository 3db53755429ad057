/** The raw limit of a snapshot's memory: the same bytes, one pwrite or pread after another by one thread, in the same place. */
import { closeSync, fdatasyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { AddressSpace } from '#lib/memory/index.js';
import { ramRanges } from '#lib/boot/index.js';

const MIB = 2 ** 20;

/** ms to write that much of `from` to a new file and to sync it; the file is removed. */
export function rawWriteMs(file: string, from: Uint8Array): number {
  const startMs = performance.now();
  const fd = openSync(file, 'wx', 0o600);
  for (let at = 0; at < from.length; at += MIB) writeSync(fd, from, at, Math.min(MIB, from.length - at), at);
  fdatasyncSync(fd);
  const ms = performance.now() - startMs;
  closeSync(fd);
  rmSync(file);
  return ms;
}

/** ms to read the file into memory of a guest's kind that nobody has touched. */
export function rawReadMs(file: string, bytes: number): number {
  const memory = new AddressSpace({ ranges: ramRanges(bytes) });
  const startMs = performance.now();
  const fd = openSync(file, 'r');
  for (let at = 0; ; at += MIB) {
    if (at + MIB > bytes || readSync(fd, memory.window(at, MIB), 0, MIB, at) === 0) break;
  }
  const ms = performance.now() - startMs;
  closeSync(fd);
  memory.close();
  return ms;
}

/**
 * An initramfs of a bench program's own: the default guest's, behind it archives of programs, and at last its init. The
 * kernel takes one archive after the other, the later file wins.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { cpioArchive, type CpioEntry } from '#lib/images/cpio.js';
import { debianPrograms, type DebianProgramsWanted } from '#lib/images/debian-programs.js';
import { defaultInitramfs } from '#lib/images/initramfs.js';
import type { KernelImage } from '#lib/images/kernel.js';

export interface BenchImage {
  readonly kernel: KernelImage;
  /** The text of /init. */
  readonly init: string;
  readonly programs: DebianProgramsWanted;
  /** Files of this machine that need no library. */
  readonly statics?: readonly string[];
}

export async function benchInitramfs({ kernel, init, programs, statics = [] }: BenchImage): Promise<Uint8Array> {
  const executable = (path: string, data: Uint8Array): CpioEntry => ({ path, type: 'file', mode: 0o755, data });
  const own = await Promise.all(statics.map(async (file) => executable(`bin/${basename(file)}`, await readFile(file))));
  const parts = [
    await readFile(await defaultInitramfs({ kernel })),
    await readFile(await debianPrograms(programs)),
    cpioArchive([...own, executable('init', Buffer.from(init))]),
  ];
  // Each archive starts at a multiple of 4 bytes.
  return Buffer.concat(parts.flatMap((part) => [part, Buffer.alloc(-part.length & 3)]));
}

/**
 * Assembles the guests in test/guests at test time, with the system's `as` and `ld`, into the flat bytes that
 * Machine.create takes.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FOLDER = new URL('../guests/', import.meta.url).pathname;

/** `defines` become symbols of the assembler (--defsym). */
export function assemble(name: string, address: number, defines: Record<string, number> = {}): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-as-'));
  try {
    const object = join(folder, 'guest.o');
    const flat = join(folder, 'guest.bin');
    const symbols = Object.entries(defines).flatMap(([symbol, value]) => ['--defsym', `${symbol}=${value}`]);
    execFileSync('as', ['--64', '-I', FOLDER, ...symbols, '-o', object, join(FOLDER, `${name}.S`)]);
    execFileSync('ld', [
      '-m',
      'elf_x86_64',
      `-Ttext=0x${address.toString(16)}`,
      '-e',
      String(address),
      '--oformat',
      'binary',
      '-o',
      flat,
      object,
    ]);
    return new Uint8Array(readFileSync(flat));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

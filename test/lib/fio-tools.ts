/** fio for a guest, as a further part of its initramfs, and for this machine: what one writes the other can verify. */
import { execFileSync } from 'node:child_process';
import { debianProgramFiles, debianPrograms, FIO } from '../../lib/images/debian-programs.js';

export interface FioTools {
  /** An archive for an initramfs; fio is in the guest's PATH. */
  readonly cpio: string;
  /** Runs it here. @throws Error with its words when it fails. */
  run(args: readonly string[]): void;
}

export async function fioTools(): Promise<FioTools> {
  const [fio] = await debianProgramFiles(FIO);
  const env = { ...process.env, LD_LIBRARY_PATH: fio!.libraryFolder };
  return { cpio: await debianPrograms(FIO), run: (args) => void execFileSync(fio!.path, args, { env, stdio: 'pipe' }) };
}

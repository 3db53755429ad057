/** Runs a script with test/lib/disk-faults.c around it, in a folder whose disk gets into trouble when the script says so. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { diskFaultsLibrary } from './disk-faults-library.mjs';

const PAGE_BYTES = 4096;

/** What came of a save, or of something else that writes, while one of its calls failed. */
export interface Attempt {
  /** Undefined: it makes fewer calls, and none failed. */
  readonly failed?: { readonly call: string; readonly file: string };
  /** Undefined: it came through all the same. */
  readonly error?: { readonly code?: string; readonly errno?: string; readonly message: string };
  /** What is in the folder afterwards. */
  readonly left: readonly string[];
  readonly isAsBefore: boolean;
}

/** The JSON that `test/lib/SCRIPT` prints last; it gets `request`, with the folder, as its argument. */
export async function runWithDiskFaults<T>(script: string, request: object): Promise<T> {
  const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), 'vivarium-faults-')));
  onTestFinished(() => rmSync(scratch, { recursive: true, force: true }));
  const [page, folder] = ['page', 'disk'].map((name) => path.join(scratch, name)) as [string, string];
  writeFileSync(page, new Uint8Array(PAGE_BYTES));
  mkdirSync(folder);
  const child = spawn(
    process.execPath,
    [path.join(import.meta.dirname, script), JSON.stringify({ ...request, folder })],
    {
      env: { ...process.env, LD_PRELOAD: diskFaultsLibrary(), VIVARIUM_DISK_FAULTS: page },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  onTestFinished(() => void child.kill('SIGKILL'));
  let [out, err] = ['', ''];
  child.stdout.on('data', (bytes) => (out += String(bytes)));
  child.stderr.on('data', (bytes) => (err += String(bytes)));
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.once('close', (code, by) => resolve([code, by])),
  );
  if (status !== 0) throw new Error(`${script} ended with ${status ?? signal}: ${err}`);
  return JSON.parse(out.trim().split('\n').at(-1)!) as T;
}

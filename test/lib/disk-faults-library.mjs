/**
 * test/lib/disk-faults.c as a library. It is kept in build/ under a digest of its source, so that whoever has no compiler, as in the embedded
 * host, finds it when it was made before (scripts/test/kvm.mjs).
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

const SOURCE = path.join(import.meta.dirname, 'disk-faults.c');
const BUILD = path.join(import.meta.dirname, '../../build');

/** Where it is; made now if it is not there. @throws Error of the compiler, or where there is none */
export function diskFaultsLibrary() {
  const name = `disk-faults-${createHash('sha256').update(readFileSync(SOURCE)).digest('hex').slice(0, 12)}.so`;
  const kept = path.join(BUILD, name);
  if (existsSync(kept)) return kept;
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-faults-'));
  const made = path.join(folder, name);
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-o', made, SOURCE]);
  try {
    accessSync(BUILD, constants.W_OK);
    execFileSync('cp', [made, `${kept}.${process.pid}`]);
  } catch {
    // Somebody else's checkout: this process's own one will do.
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    return made;
  }
  renameSync(`${kept}.${process.pid}`, kept);
  rmSync(folder, { recursive: true });
  return kept;
}

/**
 * Stamps: a hash of what went into a build, kept beside its output, so that a build that is up to date is left alone.
 * Content counts, times do not: a fresh checkout of the same sources is not built again.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's root folder. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The hash of files and whole folders below the root, and of `facts` such as versions of tools. */
export function hashOf(paths, { keep = () => true, facts = [] } = {}) {
  const hash = createHash('sha256').update(JSON.stringify(facts));
  const add = (path) => {
    const full = join(ROOT, path);
    if (!existsSync(full)) return;
    if (keep(path)) hash.update(`\0${path}\0`).update(readFileSync(full));
  };
  const walk = (path) => {
    const entries = readdirSync(join(ROOT, path), { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const below = `${path}/${entry.name}`;
      if (entry.isDirectory()) walk(below);
      else add(below);
    }
  };
  for (const path of paths) {
    if (!existsSync(join(ROOT, path))) continue;
    if (path.endsWith('/')) walk(path.slice(0, -1));
    else add(path);
  }
  return hash.digest('hex');
}

/** Whether `output` exists and the stamp beside it says `hash`. */
export function isStamped(stamp, hash, output) {
  const full = join(ROOT, stamp);
  return existsSync(join(ROOT, output)) && existsSync(full) && readFileSync(full, 'utf8') === hash;
}

export function writeStamp(stamp, hash) {
  mkdirSync(dirname(join(ROOT, stamp)), { recursive: true });
  writeFileSync(join(ROOT, stamp), hash);
}

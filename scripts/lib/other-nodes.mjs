/**
 * The versions of Node that test/nodes/package.json names, as programs in the cache: those under which the package is tried beside this
 * machine's own. npm installs them, by checksum, and apart: in the package's own node_modules they would be what its scripts call `node`.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { ROOT } from './stamp.mjs';

const PROJECT = path.join(ROOT, 'test/nodes');
const FILES = ['package.json', 'package-lock.json'];
const ENTRY = 'other-nodes';

/** The cache's key, and where each program lies in its entry: `{ version, file }`. */
async function wanted() {
  const texts = await Promise.all(FILES.map((file) => readFile(path.join(PROJECT, file), 'utf8')));
  const { dependencies } = JSON.parse(texts[0]);
  const nodes = Object.entries(dependencies).map(([name, spec]) => ({ name, version: /@([\d.]+)$/.exec(spec)[1] }));
  const key = createHash('sha256').update(texts.join('\0')).digest('hex').slice(0, 16);
  return { key, nodes };
}

/** Fetched where they are not there. `cache`: lib/images/cache.ts. @returns `{ version, path }` of each */
export async function otherNodes(cache) {
  const { key, nodes } = await wanted();
  const folder = await cache.use(ENTRY, key, async (entry) => {
    for (const file of FILES) await copyFile(path.join(PROJECT, file), path.join(entry, file));
    const install = ['ci', '--no-audit', '--no-fund', '--ignore-scripts'];
    await promisify(execFile)('npm', install, { cwd: entry, env: process.env });
    for (const { name } of nodes)
      await rename(path.join(entry, 'node_modules', name, 'bin/node'), path.join(entry, name));
    for (const name of ['node_modules', ...FILES]) await rm(path.join(entry, name), { recursive: true });
  });
  return nodes.map(({ name, version }) => ({ version, path: path.join(folder, name) }));
}

/** The same, without looking further than the cache; undefined where setup has not run. */
export async function presentNodes(cache) {
  const { key, nodes } = await wanted();
  const folder = cache.peek(ENTRY, key);
  return folder && nodes.map(({ name, version }) => ({ version, path: path.join(folder, name) }));
}

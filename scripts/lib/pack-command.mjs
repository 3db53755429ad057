/**
 * Packs the command's two programs, the bin and its worker in the embedded host, out of dist/ into dist/command/: a few
 * files in place of two hundred, which more than halves the time until a command runs. The library stays in modules.
 * Prints nothing; throws what the bundler finds wrong.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { ROOT } from './stamp.mjs';

/** Packed along, with their licences beside them; `bindings` looks at the files around it, so it stays outside. */
const PACKED = ['commander', 'fzstd'];
export const COMMAND = 'dist/command/main.js';

export async function packCommand() {
  const { rolldown } = await import('rolldown');
  const dir = join(ROOT, 'dist/command');
  rmSync(dir, { recursive: true, force: true });
  const bundle = await rolldown({
    input: { main: join(ROOT, 'dist/cli/main.js'), worker: join(ROOT, 'dist/cli/worker.js') },
    platform: 'node',
    external: ['bindings'],
    onLog(level, log) {
      if (level === 'warn') throw new Error(`packing the command: ${log.message}`);
    },
  });
  const { output } = await bundle.write({ dir, format: 'esm', chunkFileNames: '[name]-[hash].js' });
  await bundle.close();
  refuseSharedPrograms(output.filter(({ type }) => type === 'chunk'));
  writeFileSync(join(dir, 'LICENSES.txt'), PACKED.map(licenceOf).join('\n'));
}

/** A program runs when it is loaded, so no other file may load it to get at something inside. */
function refuseSharedPrograms(chunks) {
  const programs = new Set(chunks.filter(({ isEntry }) => isEntry).map(({ fileName }) => fileName));
  for (const { fileName, imports, dynamicImports } of chunks) {
    const shared = [...imports, ...dynamicImports].find((name) => programs.has(name));
    if (shared !== undefined) throw new Error(`packing the command: ${fileName} would load the program ${shared}`);
  }
}

function licenceOf(name) {
  const found = findPackage(name);
  if (found === undefined) throw new Error(`${name} is not installed: run npm ci first`);
  return `${name}\n\n${readFileSync(join(found, 'LICENSE'), 'utf8')}`;
}

/** Its folder: a package need not let its package.json be resolved. */
function findPackage(name) {
  const folders = createRequire(join(ROOT, 'package.json')).resolve.paths(name) ?? [];
  return folders.map((folder) => join(folder, name)).find((folder) => existsSync(join(folder, 'package.json')));
}

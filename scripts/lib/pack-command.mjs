/**
 * Packs the command's two programs, the bin and its worker in the embedded host, out of dist/ into dist/command/: a few
 * files in place of two hundred, which more than halves the time until a command runs. The library stays in modules.
 * Prints nothing; throws what the bundler finds wrong.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ROOT } from './stamp.mjs';

export const COMMAND = 'dist/command/main.js';

export async function packCommand() {
  const { rolldown } = await import('rolldown');
  const dir = join(ROOT, 'dist/command');
  rmSync(dir, { recursive: true, force: true });
  const bundle = await rolldown({
    input: { main: join(ROOT, 'dist/cli/main.js'), worker: join(ROOT, 'dist/cli/worker.js') },
    platform: 'node',
    // The first looks for the addon from the files around it; ws does without the others where they are not installed.
    external: ['bindings', 'bufferutil', 'utf-8-validate'],
    onLog(level, log) {
      if (level === 'warn') throw new Error(`packing the command: ${log.message}`);
    },
  });
  const { output } = await bundle.write({ dir, format: 'esm', chunkFileNames: '[name]-[hash].js' });
  await bundle.close();
  const chunks = output.filter(({ type }) => type === 'chunk');
  refuseSharedPrograms(chunks);
  writeFileSync(join(dir, 'LICENSES.txt'), packedPackages(chunks).map(licenceOf).join('\n'));
}

/** A program runs when it is loaded, so no other file may load it to get at something inside. */
function refuseSharedPrograms(chunks) {
  const programs = new Set(chunks.filter(({ isEntry }) => isEntry).map(({ fileName }) => fileName));
  for (const { fileName, imports, dynamicImports } of chunks) {
    const shared = [...imports, ...dynamicImports].find((name) => programs.has(name));
    if (shared !== undefined) throw new Error(`packing the command: ${fileName} would load the program ${shared}`);
  }
}

/** The folders of the packages whose code has come along. */
function packedPackages(chunks) {
  const files = chunks.flatMap(({ moduleIds }) => moduleIds);
  const folders = files.map((file) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]);
  return [...new Set(folders.filter((folder) => folder !== undefined))].sort();
}

function licenceOf(folder) {
  const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  if (file === undefined) return declaredLicenceOf(folder);
  return `${basename(folder)}\n\n${readFileSync(join(folder, file), 'utf8')}`;
}

/** Of a package that has no file with it: what its manifest says. */
function declaredLicenceOf(folder) {
  const { license, author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  if (license === undefined) throw new Error(`packing the command: ${folder} has no licence to take along`);
  return `${basename(folder)}\n\n${license}${author === undefined ? '' : `, by ${author.name ?? author}`}\n`;
}

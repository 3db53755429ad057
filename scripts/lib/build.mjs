/**
 * The two builds of the package, each left alone when its sources have not changed: the addon (cmake-js) into build/,
 * the library and the command (tsc, then rolldown) into dist/. Both resolve to { done: 'present' | 'built' } or { error }.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildPage } from './build-page.mjs';
import { COMMAND, packCommand } from './pack-command.mjs';
import { hashOf, isStamped, ROOT, writeStamp } from './stamp.mjs';
import { findModule, findTool, lastLines, run } from './tools.mjs';

export const ADDON = 'build/Release/vivarium.node';
/** The program that fences the process of a machine. */
export const LAUNCHER = 'build/Release/vivarium-fence';
const ADDON_STAMP = 'build/.sources';
const LIBRARY_STAMP = 'dist/.sources';

/** What building the addon takes and this machine lacks, as names for people. */
export function missingForAddon() {
  const lacks = [];
  if (findTool('cmake') === undefined) lacks.push('cmake');
  if (findTool('c++', 'g++', 'clang++') === undefined) lacks.push('a C++ compiler');
  if (findTool('make', 'ninja') === undefined) lacks.push('make');
  return lacks;
}

export function addonIsBuilt() {
  return isStamped(ADDON_STAMP, addonHash(), ADDON);
}

export async function buildAddon() {
  if (addonIsBuilt()) return { done: 'present' };
  const hash = addonHash();
  const cmakeJs = findModule('cmake-js/bin/cmake-js');
  if (cmakeJs === undefined) return { error: 'cmake-js is not installed: install with --include=optional' };
  const { status, output } = await run(process.execPath, [cmakeJs, 'compile']);
  if (status !== 0) return { error: `cmake-js compile failed with status ${status}:\n${lastLines(output)}` };
  if (!existsSync(join(ROOT, ADDON))) return { error: `cmake-js compile made no ${ADDON}` };
  writeStamp(ADDON_STAMP, hash);
  return { done: 'built' };
}

export async function buildLibrary({ onStart = () => undefined } = {}) {
  const published = !existsSync(join(ROOT, 'tsconfig.build.json'));
  if (published && existsSync(join(ROOT, 'dist/index.js'))) return { done: 'present' };
  const compiler = findModule('typescript/lib/tsc.js');
  // The lock file: what the command packs along is in dist/ too.
  const programs = ['scripts/lib/pack-command.mjs', 'scripts/lib/build-page.mjs'];
  const sources = ['lib/', 'tsconfig.json', 'tsconfig.build.json', ...programs, 'package-lock.json'];
  const hash = hashOf(sources, { keep: (path) => !path.endsWith('.test.ts') });
  if (isStamped(LIBRARY_STAMP, hash, COMMAND)) return { done: 'present' };
  if (compiler === undefined) return { error: 'typescript is not installed: run npm ci first' };
  onStart();
  const { status, output } = await run(process.execPath, [compiler, '-p', 'tsconfig.build.json']);
  if (status !== 0) return { error: `tsc failed with status ${status}:\n${lastLines(output)}` };
  try {
    await buildPage();
    await packCommand();
  } catch (error) {
    return { error: String(error) };
  }
  writeStamp(LIBRARY_STAMP, hash);
  return { done: 'built' };
}

function addonHash() {
  return hashOf(['native/', 'CMakeLists.txt'], {
    facts: [versionOf('node-addon-api'), versionOf('cmake-js'), process.arch],
  });
}

function versionOf(module) {
  const path = findModule(`${module}/package.json`);
  return path === undefined ? 'none' : JSON.parse(readFileSync(path, 'utf8')).version;
}

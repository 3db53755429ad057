/**
 * Builds the dashboard's page into dist/dashboard/page: its modules by tsc with the browser's types, its HTML and styles as they are. The
 * packages that draw are not packed along: the server gives their files out of node_modules.
 */
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { ROOT } from './stamp.mjs';
import { findModule, lastLines, run } from './tools.mjs';

const SOURCES = 'lib/dashboard/page';
const TARGET = 'dist/dashboard/page';

/** Throws what the compiler finds wrong. */
export async function buildPage() {
  rmSync(join(ROOT, TARGET), { recursive: true, force: true });
  mkdirSync(join(ROOT, TARGET), { recursive: true });
  const compiler = findModule('typescript/lib/tsc.js');
  const { status, output } = await run(process.execPath, [compiler, '-p', `${SOURCES}/tsconfig.json`]);
  if (status !== 0) throw new Error(`tsc failed on the dashboard's page with status ${status}:\n${lastLines(output)}`);
  for (const name of readdirSync(join(ROOT, SOURCES)).filter((entry) => /\.(html|css)$/.test(entry))) {
    copyFileSync(join(ROOT, SOURCES, name), join(ROOT, TARGET, name));
  }
}

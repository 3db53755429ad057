/**
 * `npm run bench -- NAME [--json] [--save] [--runs N] [--seconds N] [--rate HZ] [--stage STAGE]`: runs bench/NAME.ts against the built
 * package (dist/ and the addon). The programs are TypeScript; lib/transpile.mjs makes them ready, without a second build
 * of the library.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { ROOT } from './lib/stamp.mjs';
import { requireBuild, transpile } from './lib/transpile.mjs';

const SOURCE = path.join(ROOT, 'bench');

const names = readdirSync(SOURCE)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length));

const name = process.argv.slice(2).find((argument) => !argument.startsWith('-'));
if (name === undefined || !names.includes(name)) {
  console.error(
    `usage: npm run bench -- NAME [--json] [--save] [--runs N] [--seconds N] [--rate HZ] [--stage STAGE]\nNAME is one of: ${names.join(', ')}`,
  );
  process.exit(2);
}
requireBuild();

const peers = spawnSync(
  process.execPath,
  [path.join(ROOT, 'node_modules/cmake-js/bin/cmake-js'), 'compile', '-d', 'bench/native', '--log-level', 'warn'],
  { cwd: ROOT, encoding: 'utf8' },
);
if (peers.status !== 0) {
  console.error(`bench/native does not build:\n${peers.stdout}${peers.stderr}`);
  process.exit(1);
}

const target = transpile('bench', 'bench/lib');
const run = spawnSync(process.execPath, [path.join(target, 'bench/lib/main.js'), ...process.argv.slice(2)], {
  cwd: ROOT,
  stdio: 'inherit',
});
process.exit(run.status ?? 1);

/** `npm run demo:pit`: runs examples/pit-demo/main.ts, with what it shares with the bench programs, on the built package. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { ROOT } from './lib/stamp.mjs';
import { requireBuild, transpile } from './lib/transpile.mjs';

requireBuild();
const target = transpile('bench/lib', 'examples/pit-demo');
const program = path.join(target, 'examples/pit-demo/main.js');
const { status } = spawnSync(process.execPath, [program, ...process.argv.slice(2)], { cwd: ROOT, stdio: 'inherit' });
process.exit(status ?? 1);

/**
 * The guest group in lanes: each lane has a runtime folder of its own, and so an embedded host of its own, and takes the
 * next test file when it has done one. A host has one emulated CPU and its tests run one at a time on it; two hosts on two
 * CPUs halve the wait. What measures time has the machine to itself, after the others.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { command, ROOT, vitestGroup } from './run.mjs';

const FOLDER = 'test/guest';
const LANES = Math.min(2, availableParallelism());
/** Files that hold a guest's clock against the host's. */
const ALONE = ['guest-time.test.ts'];
/** Longest first, so that the lanes end together; the others follow by name. */
const LONGEST = [
  'snapshots.test.ts',
  'docs.test.ts',
  'debian.test.ts',
  'console.test.ts',
  'kernels.test.ts',
  'stdio.test.ts',
  'bad-input.test.ts',
];

const STOP_HOST = "const { embeddedHost } = await import('./dist/host/index.js'); await embeddedHost.stop();";

/** Runs every file of the group and gives the sum of their counts. `limitS` is for each file. */
export async function guestGroup({ limitS }) {
  const files = readdirSync(path.join(ROOT, FOLDER)).filter((name) => name.endsWith('.test.ts'));
  const rank = (name) => (LONGEST.includes(name) ? LONGEST.indexOf(name) : LONGEST.length);
  const shared = files.filter((name) => !ALONE.includes(name)).sort((a, b) => rank(a) - rank(b));
  const total = { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
  const runtimes = Array.from({ length: LANES }, () => mkdtempSync(path.join(tmpdir(), 'vivarium-lane-')));
  try {
    await Promise.all(runtimes.map((runtime) => lane(shared, runtime, limitS, total)));
    await Promise.all(runtimes.slice(1).map(stopHost));
    await lane(
      ALONE.filter((name) => files.includes(name)),
      runtimes[0],
      limitS,
      total,
    );
  } finally {
    for (const runtime of runtimes) {
      await stopHost(runtime);
      rmSync(runtime, { recursive: true, force: true });
    }
  }
  return total;
}

async function lane(files, runtime, limitS, total) {
  for (let file = files.shift(); file !== undefined; file = files.shift()) {
    const startedMs = Date.now();
    const filters = [path.posix.join(FOLDER, file)];
    const counts = await vitestGroup('guest', { limitS, filters, env: { XDG_RUNTIME_DIR: runtime }, inOnePiece: true });
    console.log(`${filters[0]}: ${Math.round((Date.now() - startedMs) / 1000)} s`);
    for (const count of ['passed', 'failed', 'skipped']) total[count] += counts[count];
    total.failures.push(...counts.failures);
    total.skips.push(...counts.skips);
  }
}

async function stopHost(runtime) {
  const args = ['--input-type=module', '-e', STOP_HOST];
  await command(process.execPath, args, { limitS: 60, env: { XDG_RUNTIME_DIR: runtime } });
}

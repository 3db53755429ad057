/**
 * Runs one command of the test run: a gate step (one command, one test) or a vitest group (counted by reporter.mjs).
 * Each has a time limit, after which its whole process group is ended and counted as a failure.
 */
import { spawn } from 'node:child_process';
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

const LAST_WORDS_MS = 1000;

export const ROOT = path.resolve(import.meta.dirname, '../..');

/**
 * Runs a command in the repository, its output on this terminal: as it comes, or in one piece at its end, where several
 * run at once.
 *
 * @returns {Promise<{ status: number, timedOut: boolean }>} status 128+n for a signal, like a shell
 */
export function command(program, args, { limitS = 300, env = {}, cwd = ROOT, uid, gid, inOnePiece = false } = {}) {
  return new Promise((resolve) => {
    const output = inOnePiece ? 'pipe' : 'inherit';
    const child = spawn(program, args, {
      cwd,
      stdio: ['ignore', output, output],
      env: { ...process.env, ...env },
      detached: true,
      ...(uid === undefined ? {} : { uid, gid }),
    });
    const pieces = [];
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (bytes) => pieces.push(bytes));
    let timedOut = false;
    const end = () => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // It ended by itself in the meantime.
      }
    };
    const timer = setTimeout(() => {
      timedOut = true;
      console.error(`ended after its limit of ${limitS} s: ${program} ${args.join(' ')}`);
      end();
    }, limitS * 1000);
    // detached: an interrupt of this run must reach the child too.
    const interrupted = () => {
      end();
      process.exit(130);
    };
    process.once('SIGINT', interrupted);
    process.once('SIGTERM', interrupted);
    const done = (status) => {
      clearTimeout(timer);
      process.off('SIGINT', interrupted);
      process.off('SIGTERM', interrupted);
      process.stdout.write(Buffer.concat(pieces));
      resolve({ status, timedOut });
    };
    child.on('error', (error) => {
      console.error(`${program}: ${error.message}`);
      done(127);
    });
    child.on('exit', (code, signal) => {
      const status = code ?? (signal === 'SIGKILL' ? 137 : 143);
      if (!inOnePiece) return done(status);
      // What it leaves running, such as a warm host, may hold its streams: not for ever.
      const late = setTimeout(() => child.stdout.destroy() && child.stderr.destroy(), LAST_WORDS_MS);
      child.on('close', () => {
        clearTimeout(late);
        done(status);
      });
    });
  });
}

/** A total over groups that can be added to. */
export class Totals {
  passed = 0;
  failed = 0;
  skipped = 0;
  failures = [];

  /** One test that is one command; a status in `skipStatus` is a skip with a reason. */
  addStep(name, { status, timedOut }, skip) {
    if (status === 0) {
      this.passed++;
    } else if (skip !== undefined && status === skip.status) {
      this.skipped++;
      console.log(`skipped: ${name}: ${skip.reason}`);
    } else {
      this.failed++;
      this.failures.push(`${name}${timedOut ? ' (time limit)' : ` (exit status ${status})`}`);
    }
  }

  /** The counts of a vitest group. Where `promised`, a skip counts as a failure, unless its name is one of `notPromised`. */
  addGroup(name, counts, { promised, notPromised }) {
    this.passed += counts.passed;
    this.failed += counts.failed;
    this.failures.push(...counts.failures.map((failure) => `${name}: ${failure}`));
    for (const skip of counts.skips) {
      console.log(`skipped: ${name}: ${skip.name}: ${skip.reason}`);
      if (promised && notPromised?.test(skip.name) !== true) {
        this.failed++;
        this.failures.push(`${name}: ${skip.name}: skipped, though this run promises what it needs`);
      } else {
        this.skipped++;
      }
    }
  }

  /** The closing line, alone and last. */
  line() {
    return `${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`;
  }
}

/** Runs one vitest project and gives its counts; a run that leaves no counts is one failure. */
export function vitestGroup(project, { filters = [], limitS, env = {}, cwd = ROOT, uid, gid, inOnePiece } = {}) {
  return counted(
    (countsEnv) =>
      command(process.execPath, vitestArguments(project, filters), {
        limitS,
        cwd,
        uid,
        gid,
        inOnePiece,
        env: { ...env, ...countsEnv },
      }),
    { uid, gid },
  );
}

/**
 * The counts that a run of vitest leaves.
 *
 * @param {(countsEnv: Record<string, string>) => Promise<{ status: number, timedOut: boolean }>} run
 */
export async function counted(run, { uid, gid } = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-counts-'));
  const countsFile = path.join(folder, 'counts.json');
  try {
    if (uid !== undefined) chownSync(folder, uid, gid);
    const { status, timedOut } = await run({ VIVARIUM_TEST_COUNTS: countsFile });
    let counts;
    try {
      counts = JSON.parse(readFileSync(countsFile, 'utf8'));
    } catch {
      return oneFailure(timedOut ? 'time limit' : `vitest ended with status ${status} and left no counts`);
    }
    if (counts.running !== undefined) {
      counts.failed++;
      counts.failures.push(
        `ended (${timedOut ? 'time limit' : `status ${status}`}) during: ${counts.running.join('; ')}`,
      );
    }
    if (counts.passed + counts.failed + counts.skipped === 0) return oneFailure('no tests found');
    if (status !== 0 && counts.failed === 0) {
      counts.failed++;
      counts.failures.push(`vitest ended with status ${status}`);
    }
    return counts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** How vitest is called, here and inside the embedded host. The config is loaded without writing a bundle beside it. */
export function vitestArguments(project, filters = []) {
  return [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--project',
    project,
    '--configLoader=runner',
    '--cache=false',
    '--reporter=default',
    '--reporter=./scripts/test/reporter.mjs',
    ...filters,
  ];
}

function oneFailure(reason) {
  return { passed: 0, failed: 1, skipped: 0, failures: [reason], skips: [] };
}

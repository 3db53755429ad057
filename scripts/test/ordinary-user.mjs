/**
 * Runs part of the tests as an ordinary user who may open /dev/kvm, when the run itself is root's.
 *
 * The user is `nobody`, with no further groups. Its access to KVM is a device node of its own (mknod, mode 0600, owned by
 * it), named by VIVARIUM_KVM and removed afterwards, so that the machine's own node keeps its owner and mode even if this
 * run is killed. Where the checkout or this Node lies in a folder that `nobody` may not enter, a copy is tested.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import os, { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { ROOT } from './run.mjs';

const NOBODY = 65534;

const asNobody = (program, args, options = {}) =>
  spawnSync(program, args, { uid: NOBODY, gid: NOBODY, encoding: 'utf8', ...options });

/**
 * Prepares the user's place, calls `use` with the options for vitestGroup, and takes everything away again. Where this
 * machine has no KVM (`kvmPath` undefined), the user has none either.
 *
 * @throws Error when this machine does not let root make a device node that works.
 */
export async function asOrdinaryUser(kvmPath, use) {
  const home = mkdtempSync(path.join(tmpdir(), 'vivarium-user-'));
  chownSync(home, NOBODY, NOBODY);
  let node;
  try {
    for (const name of ['cache', 'runtime', 'tmp']) {
      mkdirSync(path.join(home, name), { mode: 0o700 });
      chownSync(path.join(home, name), NOBODY, NOBODY);
    }
    if (kvmPath !== undefined) node = makeNode(kvmPath, home);
    // By its whole path: who starts in a folder may well look around there, though a folder above it is closed to him.
    const reach = ['-e', 'fs.readdirSync(process.argv[1])', path.join(ROOT, 'lib')];
    const cwd = asNobody(process.execPath, reach, { cwd: '/' }).status === 0 ? ROOT : copyTree(home);
    shareCache(path.join(home, 'cache'));
    await use({
      cwd,
      uid: NOBODY,
      gid: NOBODY,
      env: {
        ...(node === undefined ? {} : { VIVARIUM_KVM: node }),
        HOME: home,
        XDG_CACHE_HOME: path.join(home, 'cache'),
        XDG_RUNTIME_DIR: path.join(home, 'runtime'),
        TMPDIR: path.join(home, 'tmp'),
        USER: 'nobody',
        LOGNAME: 'nobody',
      },
    });
  } finally {
    if (node !== undefined) rmSync(node, { force: true });
    rmSync(home, { recursive: true, force: true });
  }
}

/** A node for the same device that only `nobody` may open. /tmp may be mounted without devices; /dev is the second try. */
function makeNode(kvmPath, home) {
  const { rdev } = statSync(kvmPath);
  const major = String(Math.floor(rdev / 256) & 0xfff);
  const minor = String(rdev & 0xff);
  const problems = [];
  for (const folder of [home, '/dev']) {
    const node = path.join(folder, `vivarium-kvm-${process.pid}`);
    try {
      execFileSync('mknod', ['-m', '0600', node, 'c', major, minor], { stdio: 'pipe' });
      chownSync(node, NOBODY, NOBODY);
    } catch (error) {
      problems.push(error.message);
      continue;
    }
    const open = asNobody(process.execPath, ['-e', `fs.openSync(${JSON.stringify(node)}, 'r+')`]);
    if (open.status === 0) return node;
    problems.push(
      open.stderr
        ?.trim()
        .split('\n')
        .find((line) => line.includes('Error')) ?? `${node} can't be opened`,
    );
    rmSync(node, { force: true });
  }
  throw new Error(`no device node for an ordinary user: ${problems.join('; ')}`);
}

/** The checkout without what tests don't read. */
function copyTree(home) {
  const copy = path.join(home, 'checkout');
  for (const name of [
    'package.json',
    'tsconfig.json',
    'vitest.config.ts',
    'lib',
    'dist',
    'test',
    'scripts',
    'bench',
    'examples',
    'node_modules',
    'build',
    'guest',
    'native',
  ]) {
    const from = path.join(ROOT, name);
    if (existsSync(from)) cpSync(from, path.join(copy, name), { recursive: true });
  }
  return copy;
}

/** What setup fetched and built, for a user who may not read root's cache; not apt's lists, nor root's running host. */
function shareCache(target) {
  const cache = path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'vivarium');
  if (!existsSync(cache)) return;
  const copy = path.join(target, 'vivarium');
  mkdirSync(copy);
  for (const name of readdirSync(cache)) {
    if (['apt', 'debian-root', 'host-run', 'kernel-generic'].includes(name)) continue;
    execFileSync('cp', ['-r', '--reflink=auto', path.join(cache, name), copy]);
  }
  execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, copy]);
}

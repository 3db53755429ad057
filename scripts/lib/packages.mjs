/**
 * Which system packages this machine lacks, found by looking for what they provide (nothing is asked of apt), and their
 * installation by apt-get: from private sources in the cache folder, as root on Debian only.
 */
import { existsSync } from 'node:fs';
import { findTool, run } from './tools.mjs';

const QEMU = 'qemu-system-x86';
/** The first QEMU major version whose emulated SVM runs two-CPU guests without hanging (docs: facts of the host). */
const GOOD_QEMU_MAJOR = 8;
/** What Chromium is called where it is installed. */
export const CHROMIUMS = ['chromium', 'chromium-browser', 'google-chrome'];

/**
 * What is lacking: `what` for people, the Debian packages that cure it, and whether this machine can't do without.
 *
 * @param {{ forRun: boolean }} options `forRun`: leave out what only the tests need
 */
export async function lackingPackages({ forRun }) {
  const lacks = [];
  const compilers = [];
  if (findTool('cmake') === undefined) compilers.push('cmake');
  if (findTool('g++', 'clang++') === undefined) compilers.push('g++');
  if (findTool('cc', 'gcc', 'clang') === undefined) compilers.push('gcc');
  if (findTool('make', 'ninja') === undefined) compilers.push('make');
  if (!existsSync('/usr/include/stdio.h')) compilers.push('libc6-dev');
  if (compilers.length > 0) {
    lacks.push({ what: 'compilers', packages: compilers, essential: ({ addonIsBuilt }) => !addonIsBuilt });
  }
  const needsHost = (state) => state.needsHost;
  const qemu = await qemuMajor();
  if (qemu === undefined || qemu < GOOD_QEMU_MAJOR) {
    // An old one that is there is kept where no newer can be had.
    const present = qemu === undefined ? undefined : `${qemu}.x`;
    lacks.push({ what: 'qemu', packages: [QEMU], backports: true, present, essential: needsHost });
  }
  if (findTool('mke2fs') === undefined) {
    lacks.push({ what: 'mke2fs', packages: ['e2fsprogs'], essential: needsHost });
  }
  // A network for guests that wants no privileges.
  if (findTool('passt') === undefined) {
    lacks.push({ what: 'passt', packages: ['passt'], essential: () => false });
  }
  // Puts addresses on taps, in a network namespace of the tests' own.
  if (!forRun && findTool('ip') === undefined) {
    lacks.push({ what: 'ip', packages: ['iproute2'], essential: () => false });
  }
  // The other reader and writer of qcow2 images that ours is held against.
  if (!forRun && (findTool('qemu-img') === undefined || findTool('qemu-io') === undefined)) {
    lacks.push({ what: 'qemu-img', packages: ['qemu-utils'], essential: () => false });
  }
  // The agent of distributions, at the other end of our client.
  if (!forRun && findTool('qemu-ga') === undefined) {
    lacks.push({ what: 'qemu-ga', packages: ['qemu-guest-agent'], essential: () => false });
  }
  // Looks at the dashboard's page as its users do.
  if (!forRun && findTool(...CHROMIUMS) === undefined) {
    lacks.push({ what: 'chromium', packages: ['chromium'], essential: () => false });
  }
  // Makes the Debian system that guests boot from a disk.
  if (!forRun && process.getuid() === 0 && findTool('mmdebstrap') === undefined) {
    lacks.push({ what: 'mmdebstrap', packages: ['mmdebstrap'], essential: () => false });
  }
  return lacks;
}

/** Installs what cures one lack; resolves to what to say of it. Throws an error with the cure where it may not. */
export async function installPackages(lack, openPackages, say) {
  const names = lack.packages.join(' ');
  if (process.getuid() !== 0) {
    if (lack.present !== undefined) return `${names} ${lack.present} stays: only root can install a newer one`;
    throw Object.assign(new Error(`${names} not installed, and this user is not root`), {
      cure: `as root: apt-get install ${names}`,
    });
  }
  let packages;
  try {
    packages = await openPackages();
  } catch (error) {
    if (lack.present !== undefined) return `${names} ${lack.present} stays: ${error.message}`;
    throw Object.assign(new Error(`${names} not installed: ${error.message}`), {
      cure: `install what this system calls ${names}`,
    });
  }
  if (lack.backports === true) {
    try {
      say(lack.what, `installing ${names} from ${packages.codename}-backports (apt-get)`);
      await packages.install(lack.packages, { suite: 'backports' });
      return 'installed';
    } catch (error) {
      say(lack.what, `not from the backports: ${error.message}`);
      if (lack.present !== undefined) return `${names} ${lack.present} stays`;
    }
  }
  say(lack.what, `installing ${names} (apt-get)`);
  await packages.install(lack.packages);
  return 'installed';
}

/** The major version of the installed QEMU, undefined without one. */
async function qemuMajor() {
  const path = findTool('qemu-system-x86_64');
  if (path === undefined) return undefined;
  const { output } = await run(path, ['--version']);
  const major = /version (\d+)\./.exec(output)?.[1];
  return major === undefined ? undefined : Number(major);
}

/**
 * `npm test`: prepares the machine (scripts/setup.mjs), then runs the gate and every group of tests, one after the other,
 * and closes with one line, `N passed, N failed, N skipped`, summed over all. Exit status 1 when anything failed.
 *
 *   gate    format, clang-format, lint with the layer rule, types: one test each
 *   unit    no KVM; the policies, the devices on fakes, the repository's own rules
 *   kvm     on this machine's /dev/kvm; inside the embedded host where there is none that can be opened
 *   guest   stock Debian kernels, natively where this KVM can run them, else inside the embedded host; the examples
 *   user    the kvm group on this machine's /dev/kvm, if there is one, what of unit is about files that may not be read or
 *           written, and boots, once more as an ordinary user who may open it (only when this run is root's)
 *
 * Arguments name groups to run (`npm test -- unit kvm`); without any, all are run. A skip in kvm, guest or user counts
 * as a failure, since this run promises what they need; except, for an ordinary user, that of a Debian root file system.
 */
import process from 'node:process';
import { CHROMIUMS } from './lib/packages.mjs';
import { findTool } from './lib/tools.mjs';
import { embeddedKvmGroup, kvmAccess } from './test/kvm.mjs';
import { guestGroup } from './test/lanes.mjs';
import { asOrdinaryUser } from './test/ordinary-user.mjs';
import { command, Totals, vitestGroup } from './test/run.mjs';

const GROUPS = ['gate', 'unit', 'kvm', 'guest', 'user'];

const wanted = process.argv.slice(2);
const unknown = wanted.filter((group) => !GROUPS.includes(group));
if (unknown.length > 0) {
  console.error(`no such group: ${unknown.join(', ')}; the groups are ${GROUPS.join(', ')}`);
  process.exit(2);
}
const runs = (group) => wanted.length === 0 || wanted.includes(group);

const totals = new Totals();
const startedMs = Date.now();
const heading = (text) => console.log(`\n== ${text} (${Math.round((Date.now() - startedMs) / 1000)} s) ==`);
const tool = (file, args, options) => command(process.execPath, [`node_modules/${file}`, ...args], options);
const finish = () => {
  if (totals.failures.length > 0) console.log(`\nfailed:\n${totals.failures.map((name) => `  ${name}`).join('\n')}`);
  console.log(`\n${totals.line()}`);
  process.exit(totals.failed > 0 ? 1 : 0);
};

heading('setup');
const setup = await command(process.execPath, ['scripts/setup.mjs'], { limitS: 900 });
if (setup.status !== 0) {
  totals.addStep('setup', setup);
  finish();
}

if (runs('gate')) {
  heading('gate');
  totals.addStep('format', await tool('prettier/bin/prettier.cjs', ['--check', '--log-level=warn', '.']));
  totals.addStep('clang-format', await command(process.execPath, ['scripts/clang-format.mjs']), {
    status: 2,
    reason: 'clang-format 14 is not installed; nothing else depends on it',
  });
  totals.addStep('lint', await tool('eslint/bin/eslint.js', ['.']));
  totals.addStep('types', await tool('typescript/bin/tsc', ['-p', 'tsconfig.json']));
  const page = ['-p', 'lib/dashboard/page/tsconfig.json', '--noEmit'];
  totals.addStep('types of the page', await tool('typescript/bin/tsc', page));
}

if (runs('unit')) {
  heading('unit');
  totals.addGroup('unit', await vitestGroup('unit', { limitS: 1200 }), { promised: false });
}

const access = kvmAccess();
// Setup can install Chromium only as root on Debian, and inside the embedded host there is none.
const withoutBrowser = access.usable && findTool(...CHROMIUMS) !== undefined ? undefined : /dashboard\.test\.ts/;
if (runs('kvm')) {
  heading(access.usable ? `kvm, on ${access.path}` : `kvm, inside the embedded host: ${access.reason}`);
  const counts = access.usable ? await vitestGroup('kvm', { limitS: 900 }) : await embeddedKvmGroup({ limitS: 2400 });
  totals.addGroup('kvm', counts, { promised: true, notPromised: withoutBrowser });
}

if (runs('guest')) {
  heading('guest');
  // Only root can make the Debian system that it boots; what root's setup has made serves everybody with the same cache.
  const notPromised = process.getuid?.() === 0 ? undefined : /debian\.test\.ts/;
  totals.addGroup('guest', await guestGroup({ limitS: 2400 }), { promised: true, notPromised });
}

if (runs('user') && process.getuid?.() === 0) {
  heading('as an ordinary user');
  await asOrdinaryUser(access.usable ? access.path : undefined, async (user) => {
    if (access.usable) {
      const counts = await vitestGroup('kvm', { limitS: 900, ...user });
      totals.addGroup('user: kvm', counts, { promised: true, notPromised: withoutBrowser });
    }
    // What root, who may all, skips.
    const refusals = ['lib/cli/disk-option.test.ts', 'lib/images/kernel.test.ts', 'lib/vsp/block/file.test.ts'];
    const unit = await vitestGroup('unit', { limitS: 300, filters: refusals, ...user });
    totals.addGroup('user: unit', unit, { promised: true });
    const filters = ['test/guest/run-command.test.ts'];
    totals.addGroup('user: guest', await vitestGroup('guest', { limitS: 480, filters, ...user }), { promised: true });
  });
}

finish();

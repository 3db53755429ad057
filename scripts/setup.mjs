/**
 * `npm run setup`: prepares this machine. Says what it does line by line; what is there already is left alone, so that
 * a second run is quick and needs no network. The only thing of this package that installs system packages, and only
 * as root on Debian; elsewhere it says what is missing and how to cure it.
 *
 *   library     dist/ from lib/ (tsc)                 kernels     Debian's, unpacked into the cache
 *   packages    compilers, QEMU, passt, mke2fs        initramfs   the guest's root: busybox, agent, virtio modules
 *   addon       build/ from native/ (cmake-js)        host        the image of the embedded KVM host
 *   tests       the generic kernel, programs for guests, a Debian root file system, other versions of Node; Chromium is among the packages
 *
 * --refresh looks for newer kernels. --for-run leaves out what only the tests need. Exit status 1 when something that
 * this machine can't do without is missing.
 */
import { addonIsBuilt, buildAddon, buildLibrary, missingForAddon } from './lib/build.mjs';
import { embeddedHostIsNeeded, prepareEmbeddedHost } from './lib/host.mjs';
import { otherNodes } from './lib/other-nodes.mjs';
import { installPackages, lackingPackages } from './lib/packages.mjs';
import { prebuiltMisfit } from './lib/prebuilt.mjs';

const known = ['--refresh', '--for-run'];
const unknown = process.argv.slice(2).filter((argument) => !known.includes(argument));
if (unknown.length > 0) {
  console.error(`setup: unknown option ${unknown.join(' ')}; there are ${known.join(' and ')}`);
  process.exit(2);
}
const refresh = process.argv.includes('--refresh');
const forRun = process.argv.includes('--for-run');

const failures = [];
const say = (what, text) => console.log(`setup: ${what.padEnd(10)} ${text}`);
const fail = (what, error) => {
  const text = error instanceof Error ? error.message : String(error);
  const cure = error instanceof Error && error.cure !== undefined ? `\n    cure: ${error.cure}` : '';
  say(what, `MISSING: ${text}${cure}`);
  failures.push(what);
};
/** Runs one step; what is essential and fails decides the exit status, the rest is only told. */
const step = async (what, essential, action) => {
  try {
    say(what, await action());
  } catch (error) {
    if (essential) fail(what, error);
    else say(what, `not there: ${error.message}${error.cure === undefined ? '' : ` (cure: ${error.cure})`}`);
  }
};
const checked = ({ done, error }) => {
  if (error !== undefined) throw new Error(error);
  return done;
};
const finish = () => {
  if (failures.length > 0) {
    console.log(`setup: failed; missing on this machine: ${[...new Set(failures)].join(', ')}`);
    process.exit(1);
  }
  console.log('setup: done');
};

await step('library', true, async () =>
  checked(await buildLibrary({ onStart: () => say('library', 'building dist/ from lib/ (tsc)') })),
);
if (failures.length > 0) finish();

const { Cache } = await import('../dist/images/cache.js');
const { DebianPackages } = await import('../dist/images/debian-packages.js');
const { COMPILER, CURL, debianPrograms, FIO, NETWORK_PROGRAMS } = await import('../dist/images/debian-programs.js');
const { debianRoot } = await import('../dist/images/debian-root.js');
const { defaultKernel, genericKernel, hostKernel } = await import('../dist/images/kernel.js');
const { defaultInitramfs } = await import('../dist/images/initramfs.js');

const cache = new Cache();
const log = { log: (level, message) => level !== 'debug' && say('', message) };
const options = { cache, log, refresh };
const onWait = (pid) => say('', `process ${pid} is setting up as well; waiting for it`);

await cache.exclusively('setup', prepare, { onWait }).catch((error) => fail('cache', error));
finish();

async function prepare() {
  const lacking = await lackingPackages({ forRun });
  if (lacking.length === 0) say('packages', 'present');
  const notCured = [];
  for (const lack of lacking) {
    try {
      say(lack.what, await installPackages(lack, () => DebianPackages.open(cache, { log }), say));
    } catch (error) {
      notCured.push({ lack, error });
    }
  }

  // The addon's compiler and the downloads do not get in each other's way.
  const cameAlong = !addonIsBuilt() && (await prebuiltMisfit()) === undefined;
  const addon = step('addon', true, async () => {
    if (cameAlong) return 'present (it came along)';
    const lacks = missingForAddon();
    if (!addonIsBuilt() && lacks.length > 0) throw new Error(`not built: ${lacks.join(', ')} missing`);
    if (!addonIsBuilt()) say('addon', 'compiling native/');
    return checked(await buildAddon());
  });
  let kernel;
  await step('kernel', true, async () => {
    kernel = await defaultKernel(options);
    return `${kernel.release} (${kernel.path})`;
  });
  if (kernel !== undefined) await step('initramfs', true, () => defaultInitramfs({ ...options, kernel }));
  await addon;

  // Whether the embedded host is needed is found out by a probe guest, for which the addon has to be there.
  const needed = await embeddedHostIsNeeded(options);
  const state = { needsHost: needed.needed, addonIsBuilt: cameAlong || addonIsBuilt() };
  for (const { lack, error } of notCured) {
    await step(lack.what, lack.essential(state), () => Promise.reject(error));
  }
  say('host', needed.needed ? `needed: ${needed.reason}` : `not needed: ${needed.reason}`);
  if (!forRun || needed.needed) {
    await step('host', needed.needed, async () => `kernel ${(await hostKernel(options)).release}`);
    await step('host', needed.needed, () => prepareEmbeddedHost(options));
  }
  if (!forRun) {
    await step('tests', false, async () => `kernel ${(await genericKernel(options)).release}`);
    for (const programs of [NETWORK_PROGRAMS, CURL, FIO, COMPILER]) {
      const names = programs.packages.join(', ');
      await step('tests', false, async () => `${names} for guests (${await debianPrograms(programs, options)})`);
    }
    await step('tests', false, async () => {
      const nodes = await otherNodes(cache);
      return `Node ${nodes.map(({ version }) => version).join(' and ')}`;
    });
    await step('tests', false, async () => `a Debian root file system (${(await debianRoot(options)).imagePath})`);
  }
}

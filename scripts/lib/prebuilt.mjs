/**
 * What the package brings along compiled, so that installing it takes no compiler: the addon for x86-64 and glibc, the
 * program beside it that fences a machine's process, and the guest's agent. Made at `npm pack` (scripts/prepack.mjs); the installer asks here whether the addon fits.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ADDON, LAUNCHER } from './build.mjs';
import { ROOT } from './stamp.mjs';
import { findTool, lastLines, run } from './tools.mjs';

const FOLDER = 'prebuilds';
const PREBUILT = `${FOLDER}/linux-x64/vivarium.node`;
/** What README promises of glibc, and what Debian 12 has of GCC's; a library that wants newer symbols would not load there. */
const NEWEST = { GLIBC: [2, 34], GLIBCXX: [3, 4, 30] };

/** Undefined when the addon that came along runs here; else why not. */
export async function prebuiltMisfit() {
  // One that an interrupted `npm pack` has left there is of sources as they were.
  if (existsSync(join(ROOT, 'tsconfig.build.json'))) return 'this is a checkout, which is compiled';
  if (!existsSync(join(ROOT, PREBUILT))) return 'none came along';
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `it is not for ${process.platform}-${process.arch}`;
  const { napi_versions: versions } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).binary;
  if (Number(process.versions.napi) < Math.min(...versions)) return `this Node has Node-API ${process.versions.napi}`;
  process.report.excludeNetwork = true;
  if (process.report.getReport().header.glibcVersionRuntime === undefined) return 'this C library is not glibc';
  // What remains, such as the versions of libraries, the loader knows best. In a process of its own: it may be no better than that.
  const load = 'try { require(process.argv[1]); } catch ({ message }) { console.log(message); process.exit(1); }';
  const { status, output } = await run(process.execPath, ['-e', load, join(ROOT, PREBUILT)]);
  return status === 0 ? undefined : `it does not load:\n${lastLines(output, 8)}`;
}

/** Puts what `npm run build` has made, and the agent at `agent`, where the package takes them from. */
export async function makePrebuilt(agent) {
  removePrebuilt();
  const strip = findTool('strip');
  if (strip === undefined) throw new Error('strip (of binutils) is not there');
  for (const built of [ADDON, LAUNCHER]) {
    const taken = join(ROOT, dirname(PREBUILT), basename(built));
    mkdirSync(dirname(taken), { recursive: true });
    copyFileSync(join(ROOT, built), taken);
    const { status, output } = await run(strip, ['--strip-unneeded', taken]);
    if (status !== 0) throw new Error(`strip failed with status ${status}:\n${lastLines(output)}`);
    const tooNew = newerThanPromised(readFileSync(taken, 'latin1'));
    if (tooNew.length > 0) throw new Error(`${built} wants ${tooNew.join(', ')}: build it on Debian 12`);
  }
  mkdirSync(join(ROOT, FOLDER, 'guest'));
  copyFileSync(agent.path, join(ROOT, FOLDER, 'guest', `vivarium-agent-${agent.key}`));
}

export function removePrebuilt() {
  rmSync(join(ROOT, FOLDER), { recursive: true, force: true });
}

/** The symbol versions among a library's strings that Debian 12's libraries do not have. */
export function newerThanPromised(text) {
  const found = new Set(text.match(/\b(?:GLIBC|GLIBCXX)_\d+(?:\.\d+)+/g) ?? []);
  return [...found].filter((name) => {
    const [library, version] = name.split('_');
    const newest = NEWEST[library];
    const parts = version.split('.').map(Number);
    const at = parts.findIndex((part, index) => part !== (newest[index] ?? 0));
    return at >= 0 && parts[at] > (newest[at] ?? 0);
  });
}

/**
 * Programs of Debian's packages with the libraries that they need, as files of an initramfs: for guests that are to run
 * what busybox lacks. The packages are unpacked in the cache, once; nothing is installed.
 */
import { createHash } from 'node:crypto';
import { cp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { Cache } from './cache.js';
import { cpioArchive, type CpioEntry } from './cpio.js';
import { DebianPackages } from './debian-packages.js';
import { librariesOf } from './libraries.js';
import type { ImageOptions } from './options.js';

export interface DebianProgramsWanted {
  readonly packages: readonly string[];
  /** As their packages have them, such as 'usr/bin/fio'. */
  readonly programs: readonly string[];
  /** Folders below that of the libraries in which some are, as 'ceph'. */
  readonly libraryFolders?: readonly string[];
}

const ENTRY = 'debian-programs';
/** Part of the key: counted up when the same names are to give another archive. */
const LAYOUT = 1;
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const LOADER = 'lib64/ld-linux-x86-64.so.2';
/** Those of this system serve, as its loader does. */
const SYSTEM_PACKAGES = ['libc6', 'libgcc-s1'];

/** What the tests of networks run in guests. curl, which needs the most libraries, is apart. */
export const NETWORK_PROGRAMS: DebianProgramsWanted = {
  packages: ['iperf3', 'ethtool', 'iputils-ping'],
  programs: ['usr/bin/iperf3', 'sbin/ethtool', 'bin/ping'],
};
export const CURL: DebianProgramsWanted = { packages: ['curl'], programs: ['usr/bin/curl'] };

/**
 * The path of a cpio archive that holds the programs in bin/, for the end of an initramfs: they take the place of
 * busybox's links. From the cache, or made now.
 *
 * @throws VmmError ERR_SETUP: no Debian, no mirror, no such package or program; AbortError.
 */
export async function debianPrograms(wanted: DebianProgramsWanted, options: ImageOptions = {}): Promise<string> {
  const cache = options.cache ?? new Cache();
  const key = createHash('sha256')
    .update(JSON.stringify([LAYOUT, wanted]))
    .digest('hex')
    .slice(0, 16);
  const build = async (folder: string): Promise<void> => {
    const root = join(folder, 'root');
    await unpackAll(wanted.packages, root, cache, options);
    await writeFile(join(folder, 'programs.cpio'), cpioArchive(await entriesOf(wanted, root)));
    await rm(root, { recursive: true });
  };
  return join(await cache.use(ENTRY, key, build, { signal: options.signal }), 'programs.cpio');
}

/** With the libraries that they depend on. */
async function unpackAll(names: readonly string[], root: string, cache: Cache, options: ImageOptions): Promise<void> {
  const { log, signal } = options;
  const packages = await DebianPackages.open(cache, log === undefined ? {} : { log });
  const seen = new Set([...SYSTEM_PACKAGES, ...names]);
  const queue = [...names];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const found = await packages.candidate(name, { signal });
    if (found === undefined) {
      // A virtual one, which another that is named provides.
      if (!names.includes(name)) continue;
      throw new VmmError('ERR_SETUP', `Debian has no ${name} on this mirror`);
    }
    await packages.unpack(found, root, { exclude: ['./usr/share', './etc', './var'], signal });
    for (const need of found.depends.filter((each) => /^(lib|zlib)/.test(each) && !seen.has(each))) {
      seen.add(need);
      queue.push(need);
    }
  }
  // Some packages still have their libraries under /lib.
  const old = join(root, 'lib/x86_64-linux-gnu');
  if ((await stat(old).catch(() => undefined)) === undefined) return;
  await cp(old, join(root, LIBRARIES), { recursive: true, verbatimSymlinks: true });
}

async function entriesOf(wanted: DebianProgramsWanted, root: string): Promise<CpioEntry[]> {
  const folders = ['', ...(wanted.libraryFolders ?? [])].map((folder) => join(root, LIBRARIES, folder));
  const programs = wanted.programs.map((program) => join(root, program));
  const needed = await Promise.all(programs.map((program) => librariesOf(program, folders)));
  const entry = async (from: string, path: string): Promise<CpioEntry> => {
    return { path, type: 'file', mode: 0o755, data: await readFile(from) };
  };
  return Promise.all([
    entry(`/${LOADER}`, LOADER),
    ...programs.map((program) => entry(program, join('bin', basename(program)))),
    ...[...new Map(needed.flat().map((file) => [basename(file), file]))].map(([name, file]) =>
      entry(file, join(LIBRARIES, name)),
    ),
  ]);
}

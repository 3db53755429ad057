/**
 * Programs of Debian's packages with the libraries that they need: as files of an initramfs, for guests that are to run what
 * busybox lacks, and on this machine, for the other end. The packages are unpacked in the cache, once; nothing is installed.
 *
 *     debian-programs/KEY/programs.cpio    debian-programs/KEY/bin/NAME    debian-programs/KEY/lib/LIBRARY (not the system's own)
 */
import { createHash } from 'node:crypto';
import { copyFile, cp, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { Cache } from './cache.js';
import { cpioArchive, type CpioEntry } from './cpio.js';
import { DebianPackages } from './debian-packages.js';
import { librariesOf } from './libraries.js';
import { standInLibraries, type LeftOut } from './left-out-libraries.js';
import type { ImageOptions } from './options.js';

export interface DebianProgramsWanted {
  readonly packages: readonly string[];
  /** As their packages have them, such as 'usr/bin/iperf3'. */
  readonly programs: readonly string[];
  /** Libraries that stay away, for programs that are not to use them. */
  readonly leftOut?: LeftOut;
}

/** A program as this machine runs it: its libraries are found where they are with LD_LIBRARY_PATH=`libraryFolder`. */
export interface ProgramFile {
  readonly path: string;
  readonly libraryFolder: string;
  /** All that the loader takes, this system's included. */
  readonly libraries: readonly string[];
}

const ENTRY = 'debian-programs';
/** Part of the key: counted up when the same names are to give another archive. */
const LAYOUT = 2;
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
export const IPERF3: DebianProgramsWanted = { packages: ['iperf3'], programs: ['usr/bin/iperf3'] };
/** The agent that distributions ship, which is spoken to over a port of the virtio console. */
export const QEMU_GUEST_AGENT: DebianProgramsWanted = {
  packages: ['qemu-guest-agent'],
  programs: ['usr/sbin/qemu-ga'],
};
/** A small C compiler, as load. */
export const COMPILER: DebianProgramsWanted = { packages: ['tcc'], programs: ['usr/bin/tcc'] };
/** Load and verification of disks. The libraries of storage clusters are 80 MB. */
export const FIO: DebianProgramsWanted = {
  packages: ['fio'],
  programs: ['usr/bin/fio'],
  leftOut: {
    libraries: [
      ...['libgfapi.so.0', 'libibverbs.so.1', 'libnbd.so.0', 'libpmem.so.1', 'libpmemblk.so.1'],
      ...['librados.so.2', 'librbd.so.1', 'librdmacm.so.1'],
    ],
    functions: ['glfs_', 'ibv_', 'nbd_', 'pmem_', 'pmemblk_', 'rados_', 'rbd_', 'rdma_'],
  },
};

/**
 * The path of a cpio archive that holds the programs in bin/, for the end of an initramfs: they take the place of
 * busybox's links. From the cache, or made now.
 *
 * @throws VmmError ERR_SETUP: no Debian, no mirror, no such package or program; AbortError.
 */
export async function debianPrograms(wanted: DebianProgramsWanted, options: ImageOptions = {}): Promise<string> {
  return join(await unpacked(wanted, options), 'programs.cpio');
}

/**
 * The same programs on this machine, in the order of `wanted.programs`.
 *
 * @throws as debianPrograms.
 */
export async function debianProgramFiles(
  wanted: DebianProgramsWanted,
  options: ImageOptions = {},
): Promise<ProgramFile[]> {
  const folder = await unpacked(wanted, options);
  const libraryFolder = join(folder, 'lib');
  const file = async (name: string): Promise<ProgramFile> => {
    const path = join(folder, 'bin', basename(name));
    return { path, libraryFolder, libraries: await librariesOf(path, [libraryFolder]) };
  };
  return Promise.all(wanted.programs.map(file));
}

async function unpacked(wanted: DebianProgramsWanted, options: ImageOptions): Promise<string> {
  const cache = options.cache ?? new Cache();
  const key = createHash('sha256')
    .update(JSON.stringify([LAYOUT, wanted]))
    .digest('hex')
    .slice(0, 16);
  const build = async (folder: string): Promise<void> => {
    const root = join(folder, 'root');
    await unpackAll(wanted, root, cache, options);
    for (const [from, to] of await filesOf(wanted, root, options)) {
      await mkdir(join(folder, to, '..'), { recursive: true });
      await copyFile(from, join(folder, to));
    }
    await rm(root, { recursive: true });
    await mkdir(join(folder, 'lib'), { recursive: true });
    const programs = wanted.programs.map((program) => join(folder, 'bin', basename(program)));
    await writeFile(join(folder, 'programs.cpio'), await archiveOf(programs, join(folder, 'lib')));
  };
  return cache.use(ENTRY, key, build, { signal: options.signal });
}

/** With the libraries that they depend on. */
async function unpackAll(
  wanted: DebianProgramsWanted,
  root: string,
  cache: Cache,
  options: ImageOptions,
): Promise<void> {
  const { log, signal } = options;
  const packages = await DebianPackages.open(cache, log === undefined ? {} : { log });
  const names = wanted.packages;
  // A library's package has its name (Debian Policy, 8.1): librbd.so.1 is in librbd1.
  const leftOut = (wanted.leftOut?.libraries ?? []).map((library) => library.replace('.so.', ''));
  const seen = new Set([...SYSTEM_PACKAGES, ...leftOut, ...names]);
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

/** From where to where: the programs, and of their libraries those that are not this system's. */
async function filesOf(
  wanted: DebianProgramsWanted,
  root: string,
  options: ImageOptions,
): Promise<readonly [from: string, to: string][]> {
  const libraries = join(root, LIBRARIES);
  const files = new Map<string, string>();
  for (const name of wanted.programs) {
    const program = join(root, name);
    if (wanted.leftOut !== undefined) {
      await mkdir(libraries, { recursive: true });
      await standInLibraries(program, wanted.leftOut, libraries, options);
    }
    files.set(program, join('bin', basename(program)));
    for (const library of await librariesOf(program, [libraries])) {
      if (library.startsWith(root)) files.set(library, join('lib', basename(library)));
    }
  }
  return [...files];
}

async function archiveOf(programs: readonly string[], libraryFolder: string): Promise<Uint8Array> {
  const needed = await Promise.all(programs.map((program) => librariesOf(program, [libraryFolder])));
  const entry = async (from: string, path: string): Promise<CpioEntry> => {
    return { path, type: 'file', mode: 0o755, data: await readFile(from) };
  };
  return cpioArchive(
    await Promise.all([
      entry(`/${LOADER}`, LOADER),
      ...programs.map((program) => entry(program, join('bin', basename(program)))),
      ...[...new Set(needed.flat())].map((file) => entry(file, join(LIBRARIES, basename(file)))),
    ]),
  );
}

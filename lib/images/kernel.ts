/**
 * The kernels that guests boot: Debian's, downloaded and unpacked into the cache once (never installed), or, on other
 * systems, a readable kernel of this machine. Only finds and fetches; loading one into a machine is lib/boot's.
 */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { AbortError, VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import { busybox } from './busybox.js';
import { Cache, readEntryJson } from './cache.js';
import { DebianPackages, type DebianPackage, type DebianSuite } from './debian-packages.js';
import type { ImageOptions } from './options.js';
import { runTool } from './run.js';

export interface KernelImage {
  /** The bzImage. */
  readonly path: string;
  /** What `uname -r` says in it, such as '6.1.0-50-cloud-amd64'. */
  readonly release: string;
  /** Its lib/modules/RELEASE with modules.dep, if there is one. */
  readonly modulesPath: string | undefined;
  /** The folder that lib/modules lies in (`modprobe -d`). */
  readonly rootPath: string | undefined;
  /** Names this very kernel among all: part of the key of what is built from it. */
  readonly key: string;
  readonly source: 'debian' | 'system';
}

/** A flavour that Debian packages: the metapackage that names the newest, and where to look, in order. */
interface Flavour {
  readonly entry: string;
  readonly metapackage: string;
  readonly suites: readonly DebianSuite[];
  readonly exclude: readonly string[];
}

/** Files of the generic kernel that no virtual machine of ours has a use for: three quarters of its size. */
const NOT_FOR_VIRTUAL_MACHINES = [
  ...['bluetooth', 'comedi', 'firewire', 'gpu', 'hid', 'hwmon', 'iio', 'infiniband', 'input/touchscreen', 'isdn'],
  ...['leds', 'media', 'mfd', 'mmc', 'mtd', 'net/can', 'net/ethernet', 'net/phy', 'net/usb', 'net/wireless'],
  ...['pcmcia', 'pinctrl', 'platform', 'power', 'regulator', 'staging', 'thunderbolt', 'usb', 'video'],
].map((folder) => `*/kernel/drivers/${folder}`);
const GENERIC_EXCLUDE = [...NOT_FOR_VIRTUAL_MACHINES, '*/kernel/sound', '*/kernel/net/wireless', './usr'];

const CLOUD: Flavour = {
  entry: 'kernel-cloud',
  metapackage: 'linux-image-cloud-amd64',
  suites: ['release'],
  exclude: ['./usr'],
};
const GENERIC: Flavour = {
  entry: 'kernel-generic',
  metapackage: 'linux-image-amd64',
  suites: ['release'],
  exclude: GENERIC_EXCLUDE,
};
const HOST: Flavour = {
  entry: 'kernel-host',
  metapackage: 'linux-image-amd64',
  suites: ['backports', 'release'],
  exclude: GENERIC_EXCLUDE,
};

/**
 * The kernel that `run` boots by default: Debian's cloud kernel, elsewhere a readable kernel of this machine.
 *
 * @throws VmmError ERR_SETUP that says why there is none and what to do; AbortError.
 */
export async function defaultKernel(options: ImageOptions = {}): Promise<KernelImage> {
  try {
    return await debianKernel(CLOUD, options);
  } catch (error) {
    if (error instanceof AbortError) throw error;
    const own = await systemKernel();
    if (own !== undefined) {
      const why = error instanceof Error ? error.message : String(error);
      options.log?.log('warn', `no kernel of Debian's (${why}); taking this machine's ${own.path}`);
      return own;
    }
    throw new VmmError(
      'ERR_SETUP',
      `there is no kernel to boot: ${error instanceof Error ? error.message : String(error)}`,
      {
        cause: error,
        cure: 'name one with --kernel FILE, make one under /boot readable, or run on Debian with a network',
      },
    );
  }
}

/** Debian's generic kernel of this release, with the modules that a virtual machine can use. */
export function genericKernel(options: ImageOptions = {}): Promise<KernelImage> {
  return debianKernel(GENERIC, options);
}

/** The kernel of the embedded host: Debian's generic one from the backports, else the release's; both have kvm and 9p. */
export function hostKernel(options: ImageOptions = {}): Promise<KernelImage> {
  return debianKernel(HOST, options);
}

async function debianKernel(flavour: Flavour, options: ImageOptions): Promise<KernelImage> {
  const cache = options.cache ?? new Cache();
  const known = cache.current(flavour.entry);
  if (known !== undefined && options.refresh !== true) return readKernel(cache, flavour, known);
  const packages = await DebianPackages.open(cache, { log: options.log ?? silentLogger });
  const found = await findPackage(packages, flavour, options.signal);
  const key = `${found.name.replace(/^linux-image-/, '')}_${found.version.replace(/^\d+:/, '')}`;
  await cache.use(
    flavour.entry,
    key,
    async (folder) => {
      const { signal } = options;
      await packages.unpack(found, folder, { exclude: flavour.exclude, signal });
      await arrange(folder, options);
    },
    {
      signal: options.signal,
      onWait: (pid) => options.log?.log('info', `process ${pid} is fetching the same kernel; waiting for it`),
    },
  );
  await cache.setCurrent(flavour.entry, key);
  return readKernel(cache, flavour, key);
}

/** From the metapackage to the package that holds the kernel, whose name has the release in it. */
async function findPackage(
  packages: DebianPackages,
  flavour: Flavour,
  signal: AbortSignal | undefined,
): Promise<DebianPackage> {
  for (const suite of flavour.suites) {
    const meta = await packages.candidate(flavour.metapackage, { suite, signal });
    const name = meta?.depends.find((depend) => /^linux-image-\d/.test(depend));
    const real = name === undefined ? undefined : await packages.candidate(name, { suite, signal });
    if (real !== undefined) return real;
  }
  throw new VmmError('ERR_SETUP', `Debian ${packages.codename} has no ${flavour.metapackage} on this system's mirror`);
}

/** Brings an unpacked package into the shape of an entry: vmlinuz, config, lib/modules/RELEASE with modules.dep. */
async function arrange(folder: string, options: ImageOptions): Promise<void> {
  const image = (await readdir(join(folder, 'boot'))).find((file) => file.startsWith('vmlinuz-'));
  if (image === undefined) throw new VmmError('ERR_SETUP', 'the kernel package holds no boot/vmlinuz');
  const release = image.slice('vmlinuz-'.length);
  await rename(join(folder, 'boot', image), join(folder, 'vmlinuz'));
  await rename(join(folder, 'boot', `config-${release}`), join(folder, 'config'));
  await rm(join(folder, 'boot'), { recursive: true });
  // A package has no modules.dep: its installation would make it.
  const tool = await busybox(options);
  await runTool(tool.path, ['depmod', '-b', folder, release], { signal: options.signal });
  await writeFile(join(folder, 'kernel.json'), JSON.stringify({ release }));
}

async function readKernel(cache: Cache, flavour: Flavour, key: string): Promise<KernelImage> {
  const rootPath = join(cache.path, flavour.entry, key);
  const release = String((await readEntryJson(rootPath, 'kernel.json'))['release']);
  return {
    path: join(rootPath, 'vmlinuz'),
    release,
    modulesPath: join(rootPath, 'lib/modules', release),
    rootPath,
    key,
    source: 'debian',
  };
}

/** A kernel of this machine that this user may read: the running one first, then the newest. */
export async function systemKernel(bootFolder = '/boot'): Promise<KernelImage | undefined> {
  const newestFirst = (existsSync(bootFolder) ? readdirSync(bootFolder) : [])
    .filter((file) => file.startsWith('vmlinuz'))
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
  for (const file of [`vmlinuz-${runningRelease()}`, ...newestFirst]) {
    const path = join(bootFolder, file);
    if (!isReadable(path)) continue;
    const release = await bzImageRelease(path);
    if (release === undefined) continue;
    const modulesPath = join('/lib/modules', release);
    const modules = isReadable(join(modulesPath, 'modules.dep')) ? modulesPath : undefined;
    const rootPath = modules === undefined ? undefined : '/';
    return { path, release, modulesPath: modules, rootPath, key: `system-${release}`, source: 'system' };
  }
  return undefined;
}

/**
 * The release string that a bzImage carries (Documentation/arch/x86/boot.rst, field kernel_version), undefined when
 * the file is no bzImage or carries none.
 */
export async function bzImageRelease(path: string): Promise<string | undefined> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(0x10000);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    if (bytesRead < 0x210 || head.toString('latin1', 0x202, 0x206) !== 'HdrS') return undefined;
    const start = head.readUInt16LE(0x20e) + 0x200;
    if (start === 0x200 || start >= bytesRead) return undefined;
    const text = head.toString('latin1', start, Math.min(start + 256, bytesRead));
    return /^[^\0 ]+/.exec(text)?.[0];
  } finally {
    await file.close();
  }
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * The embedded host's image: one cpio archive that is its whole root file system, in memory. It holds this machine's
 * node and the libraries that it links, busybox, the kernel modules in loading order, and the inner daemon.
 * Built without privileges, once for each combination of these; vivarium's own build is not in it (bundle.ts).
 */
import { createHash } from 'node:crypto';
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { busybox } from '../images/busybox.js';
import { Cache } from '../images/cache.js';
import { cpioArchive, type CpioEntry } from '../images/cpio.js';
import { hostKernel, type KernelImage } from '../images/kernel.js';
import { ModuleIndex, readModule } from '../images/modules.js';
import type { ImageOptions } from '../images/options.js';
import { runTool } from '../images/run.js';
import { builtFile } from './folders.js';
import { INIT_SCRIPT } from './inner-init.js';

const ENTRY = 'host-image';
/** Part of the key: counted up when the same inputs are to give another archive. */
const LAYOUT = 1;

/** What the host loads, with what these need; what a kernel has built in is left out. */
const HOST_MODULES = ['virtio_pci', 'virtio_console', '9pnet_virtio', '9p', 'kvm_amd', 'tun', 'virtio_rng'];

/** The inner daemon with all that it imports, below dist/. */
const DAEMON_FILES = [
  ...['inner-daemon', 'inner-bundles', 'inner-session', 'frames', 'link', 'messages', 'paths', 'port', 'streams'].map(
    (name) => `host/${name}.js`,
  ),
  'base/errors.js',
];

export interface HostImage {
  readonly kernelPath: string;
  readonly kernelRelease: string;
  readonly initrdPath: string;
  readonly key: string;
}

/**
 * The image, from the cache or built now.
 *
 * @throws VmmError ERR_SETUP naming what is missing; AbortError.
 */
export async function hostImage(options: ImageOptions = {}): Promise<HostImage> {
  const cache = options.cache ?? new Cache();
  const daemon = DAEMON_FILES.map((file) => ({ file, path: builtFile(...file.split('/')) }));
  const [kernel, tool, node] = [await hostKernel(options), await busybox(options), realpathSync(process.execPath)];
  const { size, mtimeMs } = statSync(node);
  const hash = createHash('sha256');
  hash.update(JSON.stringify([LAYOUT, kernel.key, tool.key, node, process.version, size, mtimeMs, HOST_MODULES]));
  hash.update(INIT_SCRIPT);
  for (const { path } of daemon) hash.update(readFileSync(path));
  const key = hash.digest('hex').slice(0, 16);
  const entry = await cache.use(
    ENTRY,
    key,
    async (folder) => {
      options.log?.log('info', `building the embedded host's image (Linux ${kernel.release}, node ${process.version})`);
      const archive = cpioArchive([
        ...folderEntries(),
        fileEntry('init', Buffer.from(INIT_SCRIPT), 0o755),
        fileEntry('bin/busybox', await readFile(tool.path), 0o755),
        ...appletEntries(tool.applets),
        ...(await nodeEntries(node, options)),
        ...(await moduleEntries(kernel, tool.path)),
        fileEntry('vivarium/package.json', Buffer.from('{"type":"module"}')),
        ...(await Promise.all(
          daemon.map(async ({ file, path }) => fileEntry(`vivarium/${file}`, await readFile(path))),
        )),
      ]);
      await writeFile(join(folder, 'initrd.cpio'), archive);
    },
    { signal: options.signal },
  );
  return {
    kernelPath: kernel.path,
    kernelRelease: kernel.release,
    initrdPath: join(entry, 'initrd.cpio'),
    key,
  };
}

function folderEntries(): CpioEntry[] {
  const folders = ['bin', 'dev', 'etc', 'host', 'lib', 'lib64', 'modules', 'proc', 'run', 'sbin', 'sys', 'vivarium'];
  return [
    ...folders.map((path): CpioEntry => ({ path, type: 'directory' })),
    { path: 'dev/console', type: 'character', major: 5, minor: 1 },
    { path: 'dev/null', type: 'character', major: 1, minor: 3, mode: 0o666 },
    fileEntry('etc/passwd', Buffer.from('root:x:0:0:root:/root:/bin/sh\n')),
    fileEntry('etc/group', Buffer.from('root:x:0:\n')),
    fileEntry('etc/hosts', Buffer.from('127.0.0.1 localhost vivarium-host\n')),
  ];
}

function fileEntry(path: string, data: Uint8Array, mode = 0o644): CpioEntry {
  return { path, type: 'file', data, mode };
}

/** All applets in /bin, where nothing else of the machine's is found. */
function appletEntries(applets: readonly string[]): CpioEntry[] {
  const names = new Set(applets.map((path) => basename(path)));
  names.delete('busybox');
  return [...names].map((name) => ({ path: `bin/${name}`, type: 'symlink', target: 'busybox' }));
}

/** The libraries that a program or an addon is linked with, by the names they are asked for, with their files. */
export async function linkedLibraries(path: string, signal?: AbortSignal): Promise<Map<string, string>> {
  const libraries = new Map<string, string>();
  for (const line of (await runTool('ldd', [path], { signal })).split('\n')) {
    const match = /^\s*(?:(\S+) => )?(\/\S+) \(0x/.exec(line);
    const missing = /^\s*(\S+) => not found/.exec(line);
    if (missing) throw new VmmError('ERR_SETUP', `${path} needs ${missing[1] ?? ''}, which is not found`);
    const file = match?.[2];
    if (file !== undefined) libraries.set(basename(match?.[1] ?? file), file);
  }
  return libraries;
}

/** Node, its libraries in the loader's first default folder, and the loader where programs ask for it. */
async function nodeEntries(node: string, options: ImageOptions): Promise<CpioEntry[]> {
  const entries = [fileEntry('bin/node', await readFile(node), 0o755)];
  for (const [name, file] of await linkedLibraries(node, options.signal)) {
    const folder = name.startsWith('ld-linux') ? 'lib64' : 'lib/x86_64-linux-gnu';
    entries.push(fileEntry(`${folder}/${name}`, await readFile(file), 0o755));
  }
  return entries;
}

/** The modules as insmod takes them, and the list in which order. */
async function moduleEntries(kernel: KernelImage, busyboxPath: string): Promise<CpioEntry[]> {
  if (kernel.modulesPath === undefined) throw new VmmError('ERR_SETUP', `${kernel.path} has no modules`);
  const { modulesPath } = kernel;
  const index = await ModuleIndex.read(modulesPath);
  const lacking = HOST_MODULES.filter((name) => !index.has(name));
  if (lacking.length > 0) throw new VmmError('ERR_SETUP', `${kernel.path} lacks the modules ${lacking.join(', ')}`);
  const order = index.loadOrder(HOST_MODULES);
  const files = order.map(async ({ name, path }) => {
    return fileEntry(`modules/${name}.ko`, await readModule(join(modulesPath, path), busyboxPath));
  });
  return [
    fileEntry('modules/order', Buffer.from(order.map(({ name }) => `${name}\n`).join(''))),
    ...(await Promise.all(files)),
  ];
}

/**
 * The busybox of guests and of our own depmod: a static one of this system, or the one in Debian's busybox-static,
 * copied into the cache with the list of its applets. It is run here only to ask for that list, and as depmod.
 */
import { chmod, copyFile, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { silentLogger } from '../base/logger.js';
import { AbortError, VmmError } from '../base/errors.js';
import { Cache } from './cache.js';
import { DebianPackages } from './debian-packages.js';
import type { ImageOptions } from './options.js';
import { runTool } from './run.js';

export interface Busybox {
  readonly path: string;
  readonly key: string;
  /** Where each applet belongs, without the leading slash: 'bin/sh', 'sbin/poweroff'. */
  readonly applets: readonly string[];
}

const ENTRY = 'busybox';
/** What our init and makers call; a busybox without one of these is not taken. */
const NEEDED = [
  'sh',
  'mount',
  'umount',
  'poweroff',
  'reboot',
  'halt',
  'setsid',
  'modprobe',
  'depmod',
  'acpid',
  'stty',
  'ip',
  'udhcpc',
];

/**
 * @throws VmmError ERR_SETUP when this system has no static busybox and Debian's package can't be had; AbortError.
 */
export async function busybox(options: ImageOptions = {}): Promise<Busybox> {
  const cache = options.cache ?? new Cache();
  const known = cache.current(ENTRY);
  if (known !== undefined && options.refresh !== true) return read(cache, known);
  const found = (await fromSystem(options.signal)) ?? (await fromDebian(cache, options));
  try {
    const key = createHash('sha256')
      .update(await readFile(found.path))
      .digest('hex')
      .slice(0, 16);
    await cache.use(
      ENTRY,
      key,
      async (folder) => {
        await copyFile(found.path, join(folder, 'busybox'));
        await chmod(join(folder, 'busybox'), 0o755);
        await writeFile(join(folder, 'applets'), found.applets.join('\n'));
      },
      { signal: options.signal },
    );
    await cache.setCurrent(ENTRY, key);
    return await read(cache, key);
  } finally {
    await found.dispose?.();
  }
}

interface Found {
  readonly path: string;
  readonly applets: readonly string[];
  dispose?(): Promise<void>;
}

async function fromSystem(signal: AbortSignal | undefined): Promise<Found | undefined> {
  for (const path of ['/bin/busybox', '/usr/bin/busybox', '/usr/lib/busybox/busybox-static']) {
    const applets = await appletsIfUsable(path, signal);
    if (applets !== undefined) return { path, applets };
  }
  return undefined;
}

async function fromDebian(cache: Cache, options: ImageOptions): Promise<Found> {
  const packages = await DebianPackages.open(cache, { log: options.log ?? silentLogger });
  const wanted = await packages.candidate('busybox-static', { signal: options.signal });
  if (wanted === undefined) {
    throw new VmmError('ERR_SETUP', `Debian ${packages.codename} has no busybox-static on this system's mirror`);
  }
  const folder = await cache.makeFolder(ENTRY, `.package.${process.pid}`);
  const dispose = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    await mkdir(folder, { recursive: true });
    await packages.unpack(wanted, folder, { signal: options.signal });
    for (const path of [join(folder, 'bin/busybox'), join(folder, 'usr/bin/busybox')]) {
      const applets = await appletsIfUsable(path, options.signal);
      if (applets !== undefined) {
        await rename(path, join(folder, 'found'));
        return { path: join(folder, 'found'), applets, dispose };
      }
    }
    throw new VmmError('ERR_SETUP', `${wanted.name} ${wanted.version} holds no busybox that runs here`);
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function appletsIfUsable(path: string, signal: AbortSignal | undefined): Promise<string[] | undefined> {
  if (!(await isStaticX64(path))) return undefined;
  try {
    const applets = (await runTool(path, ['--list-full'], { signal })).split('\n').filter((line) => line !== '');
    const names = new Set(applets.map((applet) => applet.split('/').pop()));
    return NEEDED.every((name) => names.has(name)) ? applets : undefined;
  } catch (error) {
    if (error instanceof AbortError) throw error;
    return undefined;
  }
}

/** Whether the file is an x86-64 ELF program without an interpreter (no PT_INTERP among its program headers). */
export async function isStaticX64(path: string): Promise<boolean> {
  const file = await open(path, 'r').catch(() => undefined);
  if (file === undefined) return false;
  try {
    const head = Buffer.alloc(4096);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    if (bytesRead < 64 || head.readUInt32BE(0) !== 0x7f454c46 || head[4] !== 2 || head.readUInt16LE(18) !== 62)
      return false;
    const tableOffset = Number(head.readBigUInt64LE(32));
    const [entrySizeBytes, count] = [head.readUInt16LE(54), head.readUInt16LE(56)];
    if (entrySizeBytes < 56 || tableOffset + entrySizeBytes * count > bytesRead) return false;
    for (let index = 0; index < count; index++) {
      if (head.readUInt32LE(tableOffset + index * entrySizeBytes) === 3) return false;
    }
    return true;
  } catch {
    return false;
  } finally {
    await file.close();
  }
}

async function read(cache: Cache, key: string): Promise<Busybox> {
  const folder = join(cache.path, ENTRY, key);
  const applets = (await readFile(join(folder, 'applets'), 'utf8')).split('\n');
  return { path: join(folder, 'busybox'), key, applets };
}

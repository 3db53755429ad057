/**
 * The default guest's root: a cpio archive with busybox, the kernel's virtio modules, the guest agent and the scripts in guest/.
 * Built once into the cache for each kernel. Not compressed: a guest whose kernel is emulated unpacks far slower than
 * the host copies.
 */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { guestAgent } from './agent.js';
import { busybox } from './busybox.js';
import { Cache } from './cache.js';
import { cpioArchive, type CpioEntry } from './cpio.js';
import type { KernelImage } from './kernel.js';
import { ModuleIndex, readModule } from './modules.js';
import { GUEST_FOLDER, type ImageOptions } from './options.js';

const ENTRY = 'initramfs';
/** Part of the key: counted up when the same inputs are to give another archive. */
const LAYOUT = 1;

/** What guest/init may load, by the kernel's names; those that a kernel has built in, or lacks, are left out. */
const GUEST_MODULES = [
  ...['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_rng', 'virtio_balloon'],
  ...['button', 'evdev'],
];

/**
 * The initramfs for `kernel`: the path of a cpio archive. Without a kernel, or without its modules, one that has none.
 *
 * @throws VmmError ERR_SETUP when one of its parts can't be had; AbortError.
 */
export async function defaultInitramfs(
  options: ImageOptions & { kernel?: Pick<KernelImage, 'key' | 'release' | 'modulesPath'> | undefined } = {},
): Promise<string> {
  const cache = options.cache ?? new Cache();
  const { kernel } = options;
  const [tool, agent] = [await busybox(options), await guestAgent(options)];
  const scripts = await guestScripts();
  const modules = kernel?.modulesPath === undefined ? undefined : { ...kernel, path: kernel.modulesPath };
  const key = createHash('sha256')
    .update(JSON.stringify([LAYOUT, modules?.key ?? 'none', tool.key, agent.key, GUEST_MODULES]))
    .update(JSON.stringify(scripts.map(({ path, mode, data }) => [path, mode, data.toString()])))
    .digest('hex')
    .slice(0, 16);
  const entry = await cache.use(
    ENTRY,
    key,
    async (folder) => {
      options.log?.log('info', `building the guest's initramfs for ${modules?.release ?? 'a kernel without modules'}`);
      const archive = cpioArchive([
        ...baseEntries(),
        ...scripts,
        { path: 'bin/busybox', type: 'file', mode: 0o755, data: await readFile(tool.path) },
        ...appletLinks(tool.applets),
        { path: 'bin/vivarium-agent', type: 'file', mode: 0o755, data: await readFile(agent.path) },
        ...(modules === undefined ? [] : await moduleEntries(modules.path, modules.release, tool.path)),
      ]);
      await writeFile(join(folder, 'initramfs.cpio'), archive);
    },
    { signal: options.signal },
  );
  return join(entry, 'initramfs.cpio');
}

/** Our own, by where they stand in the guest. */
async function guestScripts(): Promise<(CpioEntry & { data: Buffer; mode: number })[]> {
  const script = async (path: string, name: string, mode: number) => {
    return { path, type: 'file' as const, mode, data: await readFile(join(GUEST_FOLDER, name)) };
  };
  return [
    await script('init', 'init', 0o755),
    await script('etc/network', 'network', 0o644),
    await script('etc/dhcp-event', 'dhcp-event', 0o755),
  ];
}

/** Folders, and the device nodes that the kernel needs before /dev is mounted. */
function baseEntries(): CpioEntry[] {
  const folders = ['bin', 'dev', 'etc', 'mnt', 'proc', 'root', 'run', 'sbin', 'sys', 'usr/bin', 'usr/sbin', 'var'];
  const text = (path: string, content: string, mode = 0o644): CpioEntry => ({
    path,
    type: 'file',
    mode,
    data: Buffer.from(content),
  });
  return [
    ...folders.map((path): CpioEntry => ({ path, type: 'directory', mode: path === 'root' ? 0o700 : 0o755 })),
    { path: 'tmp', type: 'directory', mode: 0o1777 },
    { path: 'dev/console', type: 'character', major: 5, minor: 1 },
    { path: 'dev/null', type: 'character', major: 1, minor: 3, mode: 0o666 },
    text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n'),
    text('etc/group', 'root:x:0:\nnogroup:x:65534:\n'),
    // One `mount -a` instead of a process for each.
    text(
      'etc/fstab',
      [
        'sysfs /sys sysfs defaults 0 0',
        'devtmpfs /dev devtmpfs defaults 0 0',
        'devpts /dev/pts devpts gid=5,mode=620,ptmxmode=666 0 0',
        'tmpfs /dev/shm tmpfs mode=1777 0 0',
        'tmpfs /run tmpfs mode=755 0 0',
        '',
      ].join('\n'),
    ),
    text('etc/hosts', '127.0.0.1 localhost\n'),
    // Busybox's acpid runs this when the ACPI power button is pressed; init powers off on SIGUSR2.
    text('etc/acpi/PWRF/00000080', '#!/bin/sh\nkill -USR2 1\n', 0o755),
    { path: 'var/run', type: 'symlink', target: '/run' },
    { path: 'etc/mtab', type: 'symlink', target: '/proc/mounts' },
  ];
}

/** `init` and `linuxrc` are left out: our own init stands for the one, and busybox's halt looks for the other. */
function appletLinks(applets: readonly string[]): CpioEntry[] {
  return applets
    .filter((path) => !['bin/busybox', 'init', 'linuxrc', 'sbin/init'].includes(path))
    .map((path) => ({ path, type: 'symlink', target: '/bin/busybox' }));
}

/** The modules under their own paths, unpacked, and a modules.dep of just these, so that modprobe works in the guest. */
async function moduleEntries(modulesPath: string, release: string, busyboxPath: string): Promise<CpioEntry[]> {
  const index = await ModuleIndex.read(modulesPath);
  const order = index.loadOrder(GUEST_MODULES);
  const root = `lib/modules/${release}`;
  const plain = (path: string): string => path.replace(/\.ko\.\w+$/, '.ko');
  const files = await Promise.all(
    order.map(async ({ path }): Promise<CpioEntry> => ({
      path: `${root}/${plain(path)}`,
      type: 'file',
      data: await readModule(join(modulesPath, path), busyboxPath),
    })),
  );
  const dep = order.map(({ name }) => {
    // modules.dep names what to load from right to left.
    const [own, ...needs] = index
      .loadOrder([name])
      .map(({ path }) => plain(path))
      .reverse();
    return `${own ?? ''}: ${needs.join(' ')}\n`;
  });
  return [...files, { path: `${root}/modules.dep`, type: 'file', data: Buffer.from(dep.join('')) }];
}

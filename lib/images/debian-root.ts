/**
 * A Debian root file system of this project's own making: what a real system needs to boot to a login from a virtio disk,
 * and the tools that exercise its devices. Made by mmdebstrap from the mirror that this system is configured with, packed
 * by mke2fs into a raw image without a partition table, and kept in the cache with its kernel and initial RAM disk, which
 * are Debian's own and unchanged.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import { MiB } from '../base/units.js';
import { Cache, readEntryJson } from './cache.js';
import { DebianPackages } from './debian-packages.js';
import type { ImageOptions } from './options.js';
import { runTool } from './run.js';

export interface DebianRoot {
  /** A raw image of one ext4 file system with the label {@link DEBIAN_ROOT_LABEL}. It is not to be changed: lend overlays. */
  readonly imagePath: string;
  readonly kernelPath: string;
  /** As initramfs-tools made it. */
  readonly initrdPath: string;
  /** What `uname -r` says in it. */
  readonly release: string;
  readonly key: string;
}

export const DEBIAN_ROOT_LABEL = 'debian-root';

const ENTRY = 'debian-root';
const IMAGE_BYTES = 1024 * MiB;
const KERNEL = 'linux-image-cloud-amd64';
const PACKAGES = [
  ...[KERNEL, 'initramfs-tools', 'systemd-sysv', 'udev', 'kmod', 'login', 'mount', 'util-linux'],
  ...['e2fsprogs', 'fio', 'qemu-guest-agent'],
];
/** What nobody reads in a guest: half of the image. */
const LEFT_OUT = ['doc', 'man', 'locale', 'info', 'lintian'].map((folder) => `path-exclude=/usr/share/${folder}/*`);
/** Run in the new root, whose path is their first argument. Root may log in on the console without a password. */
const FINISHING = [
  'echo debian > "$1/etc/hostname"',
  `echo "LABEL=${DEBIAN_ROOT_LABEL} / ext4 errors=remount-ro 0 1" > "$1/etc/fstab"`,
  'chroot "$1" passwd -d root',
  'rm -f "$1/etc/machine-id" && touch "$1/etc/machine-id"',
];
/** Of all that makes the image what it is, beside the packages' versions. */
const RECIPE = createHash('sha256')
  .update(JSON.stringify([1, IMAGE_BYTES, PACKAGES, LEFT_OUT, FINISHING]))
  .digest('hex')
  .slice(0, 8);

/**
 * The root file system, from the cache or made now, which takes some minutes.
 *
 * @throws VmmError ERR_SETUP when it can't be made: not root, no mmdebstrap or mke2fs, no mirror; AbortError.
 */
export async function debianRoot(options: ImageOptions = {}): Promise<DebianRoot> {
  const cache = options.cache ?? new Cache();
  const known = cache.current(ENTRY);
  if (known?.endsWith(RECIPE) === true && options.refresh !== true) return readRoot(cache, known);
  const log = options.log ?? silentLogger;
  const { signal } = options;
  const packages = await DebianPackages.open(cache, { log });
  const version = (await packages.candidate(KERNEL, { signal }))?.version ?? 'none';
  const key = `${packages.codename}_${version.replace(/^\d+:/, '')}_${RECIPE}`;
  await cache.use(
    ENTRY,
    key,
    async (folder) => {
      const origin = { codename: packages.codename, sources: await packages.releaseSources({ signal }) };
      await make(folder, origin, options);
    },
    {
      signal,
      onWait: (pid) => log.log('info', `process ${pid} is making the same root file system; waiting for it`),
    },
  );
  await cache.setCurrent(ENTRY, key);
  return readRoot(cache, key);
}

async function make(
  folder: string,
  origin: { readonly codename: string; readonly sources: string },
  options: ImageOptions,
): Promise<void> {
  const { signal, log = silentLogger } = options;
  if (process.getuid?.() !== 0) {
    // The owners of files in the image are those of the folder that it is packed from.
    throw new VmmError('ERR_SETUP', 'only root can make a Debian root file system', { cure: 'as root: npm run setup' });
  }
  const root = join(folder, 'root');
  await mkdir(root, { mode: 0o755 });
  try {
    log.log('info', `making a Debian root file system (mmdebstrap): ${PACKAGES.join(', ')}`);
    const args = [
      ...['--quiet', '--mode=root', '--variant=minbase', '--format=directory', `--include=${PACKAGES.join(',')}`],
      ...['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"'],
      ...LEFT_OUT.map((option) => `--dpkgopt=${option}`),
      ...FINISHING.map((command) => `--customize-hook=${command}`),
      ...[origin.codename, root, origin.sources],
    ];
    await runTool('mmdebstrap', args, { signal, cure: 'as root: apt-get install mmdebstrap' });
    const image = (await readdir(join(root, 'boot'))).find((file) => file.startsWith('vmlinuz-'));
    if (image === undefined) throw new VmmError('ERR_SETUP', 'the new root holds no boot/vmlinuz');
    const release = image.slice('vmlinuz-'.length);
    await copyFile(join(root, 'boot', image), join(folder, 'vmlinuz'));
    await copyFile(join(root, 'boot', `initrd.img-${release}`), join(folder, 'initrd.img'));
    log.log('info', 'packing it (mke2fs)');
    const disk = join(folder, 'root.img');
    await writeFile(disk, '');
    await truncate(disk, IMAGE_BYTES);
    const mke2fs = existsSync('/usr/sbin/mke2fs') ? '/usr/sbin/mke2fs' : 'mke2fs';
    const features = ['-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0', '-m', '0'];
    await runTool(mke2fs, ['-q', ...features, '-L', DEBIAN_ROOT_LABEL, '-d', root, disk], { signal });
    await writeFile(join(folder, 'root.json'), JSON.stringify({ release }));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

async function readRoot(cache: Cache, key: string): Promise<DebianRoot> {
  const folder = join(cache.path, ENTRY, key);
  return {
    imagePath: join(folder, 'root.img'),
    kernelPath: join(folder, 'vmlinuz'),
    initrdPath: join(folder, 'initrd.img'),
    release: String((await readEntryJson(folder, 'root.json'))['release']),
    key,
  };
}

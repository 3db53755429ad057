/**
 * An initramfs that runs fio on /dev/vda: the default guest's, with fio and its libraries from Debian's packages and an
 * init of its own behind it. Nothing is installed. The kernel takes one archive behind the other, the later file wins.
 */
import { cp, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { Cache } from '#lib/images/cache.js';
import { cpioArchive, type CpioEntry } from '#lib/images/cpio.js';
import { DebianPackages } from '#lib/images/debian-packages.js';
import { defaultInitramfs } from '#lib/images/initramfs.js';
import type { KernelImage } from '#lib/images/kernel.js';
import { FIO_JOBS, FIO_WARM_UP_SECONDS, type FioJob } from './fio-request.js';
import { librariesOf } from './libraries.js';

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

export async function fioInitramfs(kernel: KernelImage, seconds: number): Promise<Uint8Array> {
  const base = await readFile(await defaultInitramfs({ kernel }));
  const root = await fioRoot();
  const program = path.join(root, 'usr/bin/fio');
  const libraries = await librariesOf(
    program,
    ['', 'ceph'].map((folder) => path.join(root, LIBRARIES, folder)),
  );
  const loader = '/lib64/ld-linux-x86-64.so.2';
  const file = async (from: string, to: string): Promise<CpioEntry> => ({
    path: to,
    type: 'file',
    mode: 0o755,
    data: await readFile(from),
  });
  const own = cpioArchive([
    { path: 'lib64', type: 'directory' },
    { path: 'usr/lib', type: 'directory' },
    { path: LIBRARIES, type: 'directory' },
    await file(loader, loader.slice(1)),
    await file(program, 'usr/bin/fio'),
    ...(await Promise.all(libraries.map((library) => file(library, path.join(LIBRARIES, path.basename(library)))))),
    { path: 'init', type: 'file', mode: 0o755, data: Buffer.from(initScript(seconds)) },
  ]);
  const padded = new Uint8Array(Math.ceil(base.length / 4) * 4 + own.length);
  padded.set(base);
  padded.set(own, padded.length - own.length);
  return padded;
}

/** fio's package and the libraries that it depends on, unpacked in the cache. */
async function fioRoot(): Promise<string> {
  const cache = new Cache();
  const packages = await DebianPackages.open(cache);
  const fio = await packages.candidate('fio');
  if (fio === undefined) throw new Error('Debian has no fio on this mirror');
  return await cache.use('bench-fio', fio.version.replace(/[^\w.-]/g, '_'), async (folder) => {
    const seen = new Set(['libc6', 'libgcc-s1']);
    const queue = [fio];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      await packages.unpack(next, folder, { exclude: ['./usr/share', './etc', './var'] });
      for (const name of next.depends.filter((name) => /^(lib|zlib)/.test(name) && !seen.has(name))) {
        seen.add(name);
        const found = await packages.candidate(name);
        if (found !== undefined) queue.push(found);
      }
    }
    // Some packages still have their libraries under /lib.
    const old = path.join(folder, 'lib/x86_64-linux-gnu');
    if (await stat(old).catch(() => undefined)) {
      await cp(old, path.join(folder, LIBRARIES), { recursive: true, verbatimSymlinks: true });
      await rm(path.join(folder, 'lib'), { recursive: true });
    }
  });
}

/** Fields 8 and 49 of fio's terse format, version 3: requests a second of reads and of writes. */
function initScript(seconds: number): string {
  const command = (job: Omit<FioJob, 'name'>, runtime = seconds): string =>
    [
      'fio --minimal --name=job --filename=/dev/vda --direct=1 --ioengine=libaio --norandommap --randrepeat=1',
      `--rw=${job.rw} --bs=${job.blockBytes} --iodepth=${job.depth} --runtime=${runtime} --time_based --size=100%`,
      '2> /dev/console',
    ].join(' ');
  const warmUp = command({ rw: 'randrw', blockBytes: 4096, depth: 4 }, FIO_WARM_UP_SECONDS);
  return [
    '#!/bin/sh',
    'export PATH=/bin:/sbin:/usr/bin:/usr/sbin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    'mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm',
    'modprobe -qa virtio_pci virtio_blk',
    `${warmUp} > /dev/null`,
    ...FIO_JOBS.flatMap((job, index) => [
      `echo "FIO-BEGINS ${index}"`,
      `line=$(${command(job)} | tail -n 1)`,
      `echo "FIO-ENDS ${index} $(echo "$line" | cut -d';' -f${job.rw.endsWith('read') ? 8 : 49})"`,
    ]),
    'reboot -f',
    '',
  ].join('\n');
}

/**
 * An initramfs with programs of Debian's packages in it and an init of a bench program's own: the default guest's, with
 * another archive behind it. Nothing is installed. The kernel takes one archive after the other, the later file wins.
 */
import { cp, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { Cache } from '#lib/images/cache.js';
import { cpioArchive, type CpioEntry } from '#lib/images/cpio.js';
import { DebianPackages } from '#lib/images/debian-packages.js';
import { defaultInitramfs } from '#lib/images/initramfs.js';
import type { KernelImage } from '#lib/images/kernel.js';
import { librariesOf } from '#lib/images/libraries.js';

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const LOADER = '/lib64/ld-linux-x86-64.so.2';

/** A program of a package's, in the cache, and the libraries that it needs. */
export interface PackagedProgram {
  readonly path: string;
  readonly libraries: readonly string[];
}

/** /usr/bin/NAME of the package of that name. @throws Error when the mirror has none. */
export async function packagedProgram(name: string): Promise<PackagedProgram> {
  const root = await packageRoot(name);
  const program = path.join(root, 'usr/bin', name);
  const folders = ['', 'ceph'].map((folder) => path.join(root, LIBRARIES, folder));
  return { path: program, libraries: await librariesOf(program, folders) };
}

/** `statics`: programs that need no library. All of them are in /usr/bin. */
export async function benchInitramfs(
  kernel: KernelImage,
  init: string,
  programs: readonly PackagedProgram[],
  statics: readonly string[] = [],
): Promise<Uint8Array> {
  const base = await readFile(await defaultInitramfs({ kernel }));
  const file = async (from: string, to: string): Promise<CpioEntry> => ({
    path: to,
    type: 'file',
    mode: 0o755,
    data: await readFile(from),
  });
  const libraries = [...new Set(programs.flatMap((program) => program.libraries))];
  const binaries = [...programs.map((program) => program.path), ...statics];
  const own = cpioArchive([
    { path: 'lib64', type: 'directory' },
    { path: 'usr/lib', type: 'directory' },
    { path: LIBRARIES, type: 'directory' },
    await file(LOADER, LOADER.slice(1)),
    ...(await Promise.all(binaries.map((binary) => file(binary, path.join('usr/bin', path.basename(binary)))))),
    ...(await Promise.all(libraries.map((library) => file(library, path.join(LIBRARIES, path.basename(library)))))),
    { path: 'init', type: 'file', mode: 0o755, data: Buffer.from(init) },
  ]);
  const padded = new Uint8Array(Math.ceil(base.length / 4) * 4 + own.length);
  padded.set(base);
  padded.set(own, padded.length - own.length);
  return padded;
}

/** The package and the libraries that it depends on, unpacked in the cache. */
async function packageRoot(name: string): Promise<string> {
  const cache = new Cache();
  const packages = await DebianPackages.open(cache);
  const wanted = await packages.candidate(name);
  if (wanted === undefined) throw new Error(`Debian has no ${name} on this mirror`);
  return await cache.use(`bench-${name}`, wanted.version.replace(/[^\w.-]/g, '_'), async (folder) => {
    const seen = new Set(['libc6', 'libgcc-s1']);
    const queue = [wanted];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      await packages.unpack(next, folder, { exclude: ['./usr/share', './etc', './var'] });
      for (const needed of next.depends.filter((needed) => /^(lib|zlib)/.test(needed) && !seen.has(needed))) {
        seen.add(needed);
        const found = await packages.candidate(needed);
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

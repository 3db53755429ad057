/**
 * fio, as Debian packages it, unpacked in the cache: load and verification for the tests of lent disks. Nothing is installed. Of what it is
 * linked with, the libraries that any disk wants are there; those of storage clusters, 80 MB of them, are not.
 */
import { join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { Cache } from './cache.js';
import { DebianPackages } from './debian-packages.js';
import type { ImageOptions } from './options.js';

const ENTRY = 'fio';
/** fio itself, and what its engines for disks and files want. */
const PACKAGES = ['fio', 'libaio1', 'libnuma1', 'zlib1g'];
const NOTHING_ELSE = ['./usr/share', './etc', './var'];

/**
 * The folder with `usr/bin/fio`; its libraries are somewhere below `lib` and `usr/lib`.
 *
 * @throws VmmError ERR_SETUP when it is not there and can't be fetched; AbortError.
 */
export async function debianFio(options: ImageOptions = {}): Promise<string> {
  const { cache = new Cache(), log, signal, refresh = false } = options;
  const known = cache.current(ENTRY);
  if (known !== undefined && !refresh) return join(cache.path, ENTRY, known);
  const packages = await DebianPackages.open(cache, log === undefined ? {} : { log });
  const fio = await packages.candidate('fio', { signal });
  if (fio === undefined) throw new VmmError('ERR_SETUP', 'Debian has no fio on this mirror');
  const key = fio.version.replace(/[^\w.-]/g, '_');
  const build = async (folder: string): Promise<void> => {
    for (const name of PACKAGES) {
      const found = await packages.candidate(name, { signal });
      if (found !== undefined) await packages.unpack(found, folder, { exclude: NOTHING_ELSE, signal });
    }
  };
  const folder = await cache.use(ENTRY, key, build, { signal });
  await cache.setCurrent(ENTRY, key);
  return folder;
}

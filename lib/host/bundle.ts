/**
 * The build of vivarium, packed into one archive for the embedded host: dist, the addon with libraries that node itself
 * does not link, the guest's sources, and the packages needed at run time. Keyed by names, sizes and times, so that a
 * rebuild gives a new bundle and the host's image stays as it is.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { Cache } from '../images/cache.js';
import { cpioArchive, type CpioEntry } from '../images/cpio.js';
import type { ImageOptions } from '../images/options.js';
import { builtFile, PACKAGE_ROOT } from './folders.js';
import { linkedLibraries } from './image.js';
import type { BundleReference } from './messages.js';
import { toInnerPath } from './paths.js';

const ENTRY = 'host-bundle';
const LAYOUT = 1;
/**
 * Packages that are only needed by serveMachine(), whose sockets nobody outside would reach; the command, which
 * serves over a channel, has them packed in; and those of the dashboard's page. They are 12 MB, which take seconds to unpack inside.
 */
const LEFT_OUT = new Set([
  'fastify',
  '@sinclair/typebox',
  'prom-client',
  'pino',
  ...['@xterm/xterm', '@xterm/addon-fit', 'uplot'],
]);

interface PackedFile {
  /** Its path in the archive. */
  readonly name: string;
  readonly path: string;
}

/**
 * The bundle of this package's present build, from the cache or packed now.
 *
 * @throws VmmError ERR_SETUP when the package is not built or a dependency is not installed; AbortError.
 */
export async function bundle(options: ImageOptions & { packageRoot?: string } = {}): Promise<BundleReference> {
  const cache = options.cache ?? new Cache();
  const root = options.packageRoot ?? PACKAGE_ROOT;
  if (options.packageRoot === undefined) builtFile('index.js');
  const files = bundleFiles(root);
  const hash = createHash('sha256').update(JSON.stringify([LAYOUT, root, realpathSync(process.execPath)]));
  for (const { name, path } of files) {
    const { size, mtimeMs } = statSync(path);
    hash.update(JSON.stringify([name, path, size, mtimeMs]));
  }
  const key = hash.digest('hex').slice(0, 16);
  const entry = await cache.use(
    ENTRY,
    key,
    async (folder) => {
      const entries = await Promise.all(
        files.map(async ({ name, path }): Promise<CpioEntry> => {
          return { path: name, type: 'file', data: await readFile(path), mode: statSync(path).mode & 0o777 };
        }),
      );
      const libraries = await extraLibraries(files, options.signal);
      await writeFile(join(folder, 'bundle.cpio'), cpioArchive([...entries, ...libraries]));
    },
    { signal: options.signal },
  );
  return { key, path: toInnerPath(join(entry, 'bundle.cpio')) };
}

/** What is packed, in a fixed order. */
export function bundleFiles(root: string): PackedFile[] {
  const files: PackedFile[] = [{ name: 'package.json', path: join(root, 'package.json') }];
  files.push(...walk(join(root, 'dist'), 'dist', (name) => name.endsWith('.js') || name.endsWith('.json')));
  files.push(...walk(join(root, 'guest'), 'guest', () => true));
  const release = join(root, 'build', 'Release');
  for (const name of existsSync(release) ? readdirSync(release).sort() : []) {
    if (name.endsWith('.node')) files.push({ name: `build/Release/${name}`, path: join(release, name) });
  }
  files.push(...walk(join(root, 'prebuilds'), 'prebuilds', () => true));
  for (const [name, folder] of runtimePackages(root)) {
    files.push(...walk(folder, `node_modules/${name}`, (file) => /\.(c?js|mjs|json|node)$/.test(file)));
  }
  return files;
}

function walk(folder: string, name: string, wanted: (name: string) => boolean): PackedFile[] {
  if (!existsSync(folder)) return [];
  const files: PackedFile[] = [];
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name === 'node_modules') continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...walk(path, `${name}/${entry.name}`, wanted));
    else if (wanted(entry.name) && statSync(path).isFile()) files.push({ name: `${name}/${entry.name}`, path });
  }
  return files;
}

/** The packages that the build imports at run time, each with its folder, found as node finds them. */
export function runtimePackages(root: string): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (from: string): void => {
    const manifest = JSON.parse(readFileSync(join(from, 'package.json'), 'utf8')) as {
      dependencies?: Record<string, string>;
    };
    for (const name of Object.keys(manifest.dependencies ?? {}).sort()) {
      if (LEFT_OUT.has(name) || found.has(name)) continue;
      const folder = findPackage(name, from);
      found.set(name, folder);
      visit(folder);
    }
  };
  visit(root);
  return found;
}

function findPackage(name: string, from: string): string {
  for (let folder = realpathSync(from); ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (folder === dirname(folder)) {
      throw new VmmError('ERR_SETUP', `the package ${name} is not installed`, { cure: 'npm ci' });
    }
  }
}

/** Libraries that an addon is linked with and node is not: the image has only those of node. */
async function extraLibraries(files: readonly PackedFile[], signal: AbortSignal | undefined): Promise<CpioEntry[]> {
  const addons = files.filter(({ name }) => name.endsWith('.node'));
  if (addons.length === 0) return [];
  const present = await linkedLibraries(realpathSync(process.execPath), signal);
  const extra = new Map<string, string>();
  for (const { path } of addons) {
    for (const [name, file] of await linkedLibraries(path, signal)) if (!present.has(name)) extra.set(name, file);
  }
  return Promise.all(
    [...extra].map(async ([name, file]): Promise<CpioEntry> => {
      return { path: `lib/${name}`, type: 'file', data: await readFile(file), mode: 0o755 };
    }),
  );
}

/**
 * Debian packages by this system's own apt: looked up, downloaded and unpacked by anyone, installed by root only.
 * Everything goes through private sources and lists in the cache folder, so that the system's configuration is never
 * changed and its lists need not be there. Only `npm run setup` calls install().
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLogger, type Logger } from '../base/logger.js';
import { AbortError, VmmError } from '../base/errors.js';
import {
  backportsSources,
  formatDeb822Sources,
  parseDeb822Sources,
  parseSourcesList,
  releaseSources,
  type AptSource,
} from './apt-sources.js';
import type { Cache } from './cache.js';
import { runTool } from './run.js';

export type DebianSuite = 'release' | 'backports';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** Names in Depends, alternatives left out. */
  readonly depends: readonly string[];
}

/** How old the private lists may be before they are fetched again; a new build of an entry is what asks. */
const LISTS_MAX_AGE_MS = 24 * 60 * 60 * 1000;

/** A mirror that could not be reached is not tried again at once: apt's own retries take long. By private folder. */
const RETRY_AFTER_MS = 60_000;
const recentFailures = new Map<string, { error: Error; atMs: number }>();

export class DebianPackages {
  readonly codename: string;
  readonly #cache: Cache;
  readonly #folder: string;
  readonly #log: Logger;
  readonly #sources: readonly AptSource[];
  #updated: Promise<void> | undefined;

  private constructor(cache: Cache, codename: string, sources: readonly AptSource[], log: Logger) {
    this.#cache = cache;
    this.#folder = join(cache.path, 'apt');
    this.codename = codename;
    this.#sources = sources;
    this.#log = log;
  }

  /**
   * Looks at the system; nothing is fetched yet.
   *
   * @throws VmmError ERR_SETUP when this is no Debian, has no apt, or no source of its own release is configured.
   */
  static async open(cache: Cache, options: { log?: Logger; etc?: string } = {}): Promise<DebianPackages> {
    const etc = options.etc ?? '/etc';
    const release = await readFile(join(etc, 'os-release'), 'utf8').catch(() => '');
    const field = (name: string): string => new RegExp(`^${name}=["']?([^"'\\n]*)["']?$`, 'm').exec(release)?.[1] ?? '';
    if (field('ID') !== 'debian' || field('VERSION_CODENAME') === '') {
      throw new VmmError('ERR_SETUP', `this system is no Debian release (ID is '${field('ID')}' in os-release)`);
    }
    for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb']) {
      if (!existsSync(`/usr/bin/${tool}`)) throw new VmmError('ERR_SETUP', `${tool} is missing on this system`);
    }
    const codename = field('VERSION_CODENAME');
    const configured = await readSystemSources(etc);
    const sources = releaseSources(configured, codename);
    if (sources.length === 0) {
      throw new VmmError('ERR_SETUP', `no package source of Debian ${codename} is configured under ${etc}/apt`, {
        cure: `add a mirror of Debian ${codename} (component main) to ${etc}/apt/sources.list.d`,
      });
    }
    return new DebianPackages(cache, codename, configured, options.log ?? silentLogger);
  }

  /**
   * The newest version of a package in a suite, undefined when the suite does not have it (or can't be had).
   *
   * @throws VmmError ERR_SETUP when the lists can't be fetched.
   */
  async candidate(
    name: string,
    options: { suite?: DebianSuite; signal?: AbortSignal | undefined } = {},
  ): Promise<DebianPackage | undefined> {
    await this.#update(options.signal);
    const suite = options.suite ?? 'release';
    if (suite === 'backports' && !this.#hasBackports()) return undefined;
    const text = await runTool(
      'apt-cache',
      [...this.#arguments(suite), 'show', '--no-all-versions', name],
      options,
    ).catch((error: unknown) => {
      if (error instanceof AbortError) throw error;
      return '';
    });
    const found = parsePackageStanza(text);
    if (found === undefined) return undefined;
    if (suite === 'backports' && !/[~+]bpo/.test(found.version)) return undefined;
    return found;
  }

  /** The path of a .sources file with the release's own suites, for tools that call apt by themselves. @throws VmmError ERR_SETUP */
  async releaseSources(options: { signal?: AbortSignal | undefined } = {}): Promise<string> {
    await this.#update(options.signal);
    return join(this.#folder, 'sources/release.sources');
  }

  /**
   * Downloads a package into `folder`; resolves to the file's path. Installs nothing.
   *
   * @throws VmmError ERR_SETUP with apt's own words.
   */
  async download(
    wanted: DebianPackage,
    folder: string,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<string> {
    await this.#update(options.signal);
    await mkdir(folder, { recursive: true });
    this.#log.log('info', `downloading ${wanted.name} ${wanted.version}`);
    const args = [...this.#arguments('release'), '-q', 'download', `${wanted.name}=${wanted.version}`];
    await runTool('apt-get', args, { cwd: folder, ...options, cure: NETWORK_CURE });
    const file = (await readdir(folder)).find((entry) => entry.startsWith(`${wanted.name}_`) && entry.endsWith('.deb'));
    if (file === undefined) throw new VmmError('ERR_SETUP', `apt-get downloaded no file for ${wanted.name}`);
    return join(folder, file);
  }

  /**
   * Downloads a package and unpacks its files below `folder`, as they are in the package.
   *
   * @param options.exclude patterns of tar for files to leave out, such as './usr'.
   */
  async unpack(
    wanted: DebianPackage,
    folder: string,
    options: { exclude?: readonly string[]; signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const parcel = join(folder, '.package');
    const file = await this.download(wanted, parcel, options);
    this.#log.log('info', `unpacking ${wanted.name} ${wanted.version}`);
    await unpackArchive(file, folder, options);
    await rm(parcel, { recursive: true, force: true });
  }

  /**
   * Installs packages on this system, from the release or with what the backports have; root only.
   *
   * @throws VmmError ERR_SETUP when not root, or with apt's own words.
   */
  async install(
    names: readonly string[],
    options: { suite?: DebianSuite; signal?: AbortSignal | undefined; onLine?: (line: string) => void } = {},
  ): Promise<void> {
    if (process.getuid?.() !== 0) {
      throw new VmmError('ERR_SETUP', `only root can install ${names.join(', ')}`, {
        cure: `as root: apt-get install ${names.join(' ')}`,
      });
    }
    await this.#update(options.signal);
    const suite = options.suite ?? 'release';
    if (suite === 'backports' && !this.#hasBackports()) {
      throw new VmmError(
        'ERR_SETUP',
        `the backports of Debian ${this.codename} can't be had from this system's mirror`,
      );
    }
    const args = [
      ...this.#arguments(suite),
      ...['-q', '-y', '--no-install-recommends'],
      // Another apt or dpkg may be at work; it is waited for instead of failing.
      ...['-o', 'DPkg::Lock::Timeout=300'],
      ...['-o', 'Dpkg::Options::=--force-confdef', '-o', 'Dpkg::Options::=--force-confold'],
      ...['install', ...names],
    ];
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    await runTool('apt-get', args, { env, signal: options.signal, cure: NETWORK_CURE, ...pick(options, 'onLine') });
  }

  /** Fetches the private lists if they are missing or old. Without backports if only those can't be had. */
  #update(signal: AbortSignal | undefined): Promise<void> {
    const failed = recentFailures.get(this.#folder);
    if (failed !== undefined && Date.now() - failed.atMs < RETRY_AFTER_MS) return Promise.reject(failed.error);
    this.#updated ??= this.#updateOnce(signal).catch((error: unknown) => {
      this.#updated = undefined;
      if (error instanceof Error && !(error instanceof AbortError))
        recentFailures.set(this.#folder, { error, atMs: Date.now() });
      throw error;
    });
    return this.#updated;
  }

  async #updateOnce(signal: AbortSignal | undefined): Promise<void> {
    await this.#cache.makeFolder('apt');
    await this.#cache.exclusively(
      'apt',
      async () => {
        const base = formatDeb822Sources(releaseSources(this.#sources, this.codename));
        const backports = formatDeb822Sources(backportsSources(this.#sources, this.codename));
        const stamp = join(this.#folder, 'updated');
        // The folder's own path is in apt.conf: a copied cache starts anew.
        const stampText = [this.#folder, base, backports].join('\n');
        if ((await freshStamp(stamp)) === stampText) return;
        for (const folder of ['lists/partial', 'archives/partial', 'sources']) {
          await mkdir(join(this.#folder, folder), { recursive: true });
        }
        await writeFile(join(this.#folder, 'apt.conf'), aptConfiguration(this.#folder));
        await writeFile(join(this.#folder, 'sources/release.sources'), base);
        await writeFile(join(this.#folder, 'sources/backports.sources'), backports);
        this.#log.log('info', `fetching the package lists of Debian ${this.codename} and its backports`);
        const args = [...this.#arguments('release'), '-q', '-o', 'APT::Update::Error-Mode=any', 'update'];
        try {
          await runTool('apt-get', args, { signal });
        } catch (error) {
          if (error instanceof AbortError) throw error;
          await rm(join(this.#folder, 'sources/backports.sources'));
          await runTool('apt-get', args, { signal, cure: NETWORK_CURE });
          this.#log.log('warn', `the backports of Debian ${this.codename} can't be had; going on without them`);
        }
        await writeFile(stamp, stampText);
      },
      { signal },
    );
  }

  #hasBackports(): boolean {
    return existsSync(join(this.#folder, 'sources/backports.sources'));
  }

  #arguments(suite: DebianSuite): string[] {
    const configuration = ['-c', join(this.#folder, 'apt.conf')];
    return suite === 'release' ? configuration : [...configuration, '-t', `${this.codename}-backports`];
  }
}

const NETWORK_CURE = "check this machine's network and its package sources under /etc/apt";

/** Read by apt after the system's configuration, so that it keeps proxies and keys and loses hooks that root wrote for root. */
function aptConfiguration(folder: string): string {
  const quoted = (path: string): string => JSON.stringify(join(folder, path));
  return [
    'Dir::Etc::sourcelist "/dev/null";',
    `Dir::Etc::sourceparts ${quoted('sources')};`,
    `Dir::State::lists ${quoted('lists')};`,
    `Dir::Cache::archives ${quoted('archives')};`,
    'Dir::Cache::pkgcache "";',
    'Dir::Cache::srcpkgcache "";',
    // The cache folder is this user's alone; apt's own unprivileged user could not write there.
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    '#clear APT::Update::Pre-Invoke;',
    '#clear APT::Update::Post-Invoke;',
    '#clear APT::Update::Post-Invoke-Success;',
    '#clear Acquire::IndexTargets::deb::DEP-11;',
    '',
  ].join('\n');
}

async function readSystemSources(etc: string): Promise<AptSource[]> {
  const text = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  const sources = parseSourcesList(await text(join(etc, 'apt/sources.list')));
  const parts = join(etc, 'apt/sources.list.d');
  for (const entry of (await readdir(parts).catch((): string[] => [])).sort()) {
    if (entry.endsWith('.list')) sources.push(...parseSourcesList(await text(join(parts, entry))));
    if (entry.endsWith('.sources')) sources.push(...parseDeb822Sources(await text(join(parts, entry))));
  }
  return sources;
}

/** The first stanza of `apt-cache show`. */
export function parsePackageStanza(text: string): DebianPackage | undefined {
  const stanza = text.split('\n\n')[0] ?? '';
  const field = (name: string): string | undefined => new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1];
  const name = field('Package');
  const version = field('Version');
  if (name === undefined || version === undefined) return undefined;
  const depends = (field('Depends') ?? '')
    .split(',')
    .map((item) => /^\s*([^\s(:|]+)/.exec(item)?.[1] ?? '')
    .filter((item) => item !== '');
  return { name, version, depends };
}

/** Unpacks a .deb below `folder`: dpkg-deb writes the archive, tar leaves out what is not wanted. */
async function unpackArchive(
  file: string,
  folder: string,
  options: { exclude?: readonly string[]; signal?: AbortSignal | undefined },
): Promise<void> {
  const ends = options.signal === undefined ? {} : { signal: options.signal };
  const writer = spawn('dpkg-deb', ['--fsys-tarfile', file], { stdio: ['ignore', 'pipe', 'pipe'], ...ends });
  const excludes = (options.exclude ?? []).map((pattern) => `--exclude=${pattern}`);
  const reader = spawn('tar', ['-x', '--no-same-owner', '-C', folder, ...excludes], {
    stdio: ['pipe', 'ignore', 'pipe'],
    ...ends,
  });
  let words = '';
  writer.stderr.setEncoding('utf8').on('data', (text: string) => (words += text));
  reader.stderr.setEncoding('utf8').on('data', (text: string) => (words += text));
  reader.stdin.on('error', () => undefined);
  writer.stdout.pipe(reader.stdin);
  const end = (child: typeof writer | typeof reader): Promise<number | null> =>
    new Promise((resolve) => {
      child.once('error', (error) => {
        words += error.message;
        resolve(null);
      });
      child.once('close', resolve);
    });
  const codes = await Promise.all([end(writer), end(reader)]);
  if (options.signal?.aborted === true) throw new AbortError(options.signal);
  if (codes.some((code) => code !== 0)) {
    throw new VmmError('ERR_SETUP', `${file} can't be unpacked: ${words.trim()}`);
  }
}

async function freshStamp(path: string): Promise<string | undefined> {
  try {
    if (Date.now() - (await stat(path)).mtimeMs > LISTS_MAX_AGE_MS) return undefined;
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

function pick<T extends object, K extends keyof T>(from: T, key: K): Partial<Pick<T, K>> {
  return from[key] === undefined ? {} : ({ [key]: from[key] } as Pick<T, K>);
}

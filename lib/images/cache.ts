/**
 * The cache folder ($XDG_CACHE_HOME or ~/.cache, then vivarium): entries that are built once and never changed.
 * An entry is a folder `NAME/KEY`, built in a sibling, flushed, and published by one rename, so that what is there is
 * whole. `NAME/current` points at the entry in use, so that nothing has to be looked up on the network again.
 * The folder may be deleted at any time; it must hold nothing that can't be made anew.
 *
 *     vivarium/kernel-cloud/6.1.176-1/    an entry          vivarium/kernel-cloud/.6.1.176-1.lock       its builder
 *     vivarium/kernel-cloud/current       -> 6.1.176-1      vivarium/kernel-cloud/.6.1.176-1.PID.tmp/   being built
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { randomBytes } from 'node:crypto';
import { VmmError } from '../base/errors.js';
import { cacheRoot } from '../base/user-folders.js';
import { acquireLock } from './lock.js';
import { runTool } from './run.js';

/** What was in the entry when it was published: every file of a small entry, the top two levels of a large one. */
const MANIFEST = '.entry.json';
const MANIFEST_ALL_BELOW_FILES = 64;

export interface UseOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once when another process builds the same entry. */
  readonly onWait?: ((holderPid: number) => void) | undefined;
}

export class Cache {
  readonly path: string;

  constructor(path: string = cacheRoot()) {
    this.path = path;
  }

  /**
   * The folder of an entry, built by `build` if it is not there or not whole. Processes that want the same entry at
   * once wait for the first. A build that fails or is aborted leaves nothing behind.
   *
   * @throws what `build` throws; VmmError ERR_SETUP when the folder can't be written; AbortError.
   */
  async use(
    name: string,
    key: string,
    build: (folder: string) => Promise<void>,
    options: UseOptions = {},
  ): Promise<string> {
    checkName(name);
    checkName(key);
    const present = this.peek(name, key);
    if (present !== undefined) return present;
    await this.makeFolder(name);
    const release = await acquireLock(join(this.path, name, `.${key}.lock`), options);
    try {
      const made = this.peek(name, key);
      if (made !== undefined) return made;
      await this.#removeLeftovers(name, key);
      return await this.#build(name, key, build);
    } finally {
      await release();
    }
  }

  /** The folder of an entry that is there and whole; synchronous and cheap, for the start of every command. */
  peek(name: string, key: string): string | undefined {
    const folder = join(this.path, name, key);
    try {
      const files = JSON.parse(readFileSync(join(folder, MANIFEST), 'utf8')) as [path: string, sizeBytes: number][];
      for (const [path, sizeBytes] of files) {
        if (statSync(join(folder, path)).size !== sizeBytes) return undefined;
      }
      return folder;
    } catch {
      return undefined;
    }
  }

  /** The key that `current` of this name points at, if that entry is there and whole. */
  current(name: string): string | undefined {
    try {
      const key = readlinkSync(join(this.path, name, 'current'));
      return this.peek(name, key) === undefined ? undefined : key;
    } catch {
      return undefined;
    }
  }

  /** The keys of the entries of this name that are there and whole, newest first. */
  async keys(name: string): Promise<string[]> {
    const files = await readdir(join(this.path, name)).catch((): string[] => []);
    const keys = files.filter((file) => file !== 'current' && this.peek(name, file) !== undefined);
    const ages = await Promise.all(keys.map(async (key) => (await stat(join(this.path, name, key))).mtimeMs));
    return keys
      .map((key, index) => ({ key, mtimeMs: ages[index] ?? 0 }))
      .sort((a, b) => b.mtimeMs - a.mtimeMs)
      .map(({ key }) => key);
  }

  async setCurrent(name: string, key: string): Promise<void> {
    checkName(key);
    const draft = join(this.path, name, `.current.${randomBytes(6).toString('hex')}`);
    await symlink(key, draft);
    await rename(draft, join(this.path, name, 'current'));
  }

  /** Runs `action` while no other process does so under the same name. */
  async exclusively<T>(name: string, action: () => Promise<T>, options: UseOptions = {}): Promise<T> {
    checkName(name);
    await this.makeFolder('.');
    const release = await acquireLock(join(this.path, `.${name}.lock`), options);
    try {
      return await action();
    } finally {
      await release();
    }
  }

  /** Creates a folder within the cache, and the cache itself, for this user alone. */
  async makeFolder(...names: string[]): Promise<string> {
    const folder = join(this.path, ...names);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw new VmmError('ERR_SETUP', `the cache folder ${folder} can't be made: ${(error as Error).message}`, {
        cause: error,
        cure: 'set XDG_CACHE_HOME to a folder that you may write to',
      });
    }
    return folder;
  }

  async #build(name: string, key: string, build: (folder: string) => Promise<void>): Promise<string> {
    const parent = join(this.path, name);
    const draft = join(parent, `.${key}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
    const folder = join(parent, key);
    await mkdir(draft, { mode: 0o700 });
    try {
      await build(draft);
      await writeFile(join(draft, MANIFEST), JSON.stringify(await listFiles(draft)));
      // The content has to be on the disk before the name is: after a power failure a name without content would count.
      await runTool('sync', ['-f', draft]);
      if (existsSync(folder)) {
        const broken = `${draft}.broken`;
        await rename(folder, broken);
        await rm(broken, { recursive: true, force: true });
      }
      await rename(draft, folder);
    } catch (error) {
      await rm(draft, { recursive: true, force: true });
      // Another process without our lock (another container, say) was faster: its entry is as good.
      const theirs = this.peek(name, key);
      if (theirs !== undefined) return theirs;
      throw error;
    }
    return folder;
  }

  /** Drafts of builders that died. Only the holder of the lock builds, so every draft that is there is a leftover. */
  async #removeLeftovers(name: string, key: string): Promise<void> {
    const parent = join(this.path, name);
    for (const entry of await readdir(parent)) {
      if (entry.startsWith(`.${key}.`) && /\.\d+\.[0-9a-f]{8}\.tmp(\.broken)?$/.test(entry)) {
        await rm(join(parent, entry), { recursive: true, force: true });
      }
    }
  }
}

async function listFiles(folder: string): Promise<[string, number][]> {
  const all: string[] = [];
  const walk = (path: string, depth: number, maxDepth: number): void => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const full = join(path, entry.name);
      if (entry.isDirectory() && depth < maxDepth) walk(full, depth + 1, maxDepth);
      else if (entry.isFile()) all.push(full);
    }
  };
  walk(folder, 0, 64);
  const listed = all.length <= MANIFEST_ALL_BELOW_FILES ? all : all.filter((path) => isShallow(folder, path));
  return Promise.all(
    listed.map(async (path): Promise<[string, number]> => [relative(folder, path), (await stat(path)).size]),
  );
}

function isShallow(folder: string, path: string): boolean {
  return relative(folder, path).split('/').length <= 2;
}

/** Names of entries become names of files: one component, not hidden. */
function checkName(name: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._+:~-]*$/.test(name)) throw new RangeError(`'${name}' is no name for a cache entry`);
}

/** Reads a JSON file that a builder put into its entry. */
export async function readEntryJson(folder: string, file: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(folder, file), 'utf8')) as Record<string, unknown>;
}

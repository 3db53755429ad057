/**
 * Where this user's own files lie: the cache, which may be deleted at any time, and runtime folders, whose locks and
 * sockets mean something only while their processes live. Makes folders for this user alone; holds no policy.
 */
import { chmodSync, existsSync, lstatSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { VmmError } from './errors.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** $XDG_CACHE_HOME/vivarium; ~/.cache/vivarium where that is unset or not absolute (XDG Base Directory, "cache"). */
export function cacheRoot(env: Environment = process.env): string {
  const xdg = env['XDG_CACHE_HOME'];
  return join(xdg !== undefined && isAbsolute(xdg) ? xdg : join(env['HOME'] ?? homedir(), '.cache'), 'vivarium');
}

/**
 * $XDG_RUNTIME_DIR/vivarium/NAME where there is such a folder, otherwise NAME in the cache; made if need be.
 *
 * @throws VmmError ERR_SETUP when it belongs to another user or can't be made.
 */
export function runtimeFolder(name: string, env: Environment = process.env): string {
  const xdg = env['XDG_RUNTIME_DIR'];
  const base = xdg !== undefined && isAbsolute(xdg) && existsSync(xdg) ? join(xdg, 'vivarium') : cacheRoot(env);
  const folder = join(base, name);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new VmmError('ERR_SETUP', `${folder} can't be made: ${(error as Error).message}`, { cause: error });
  }
  const found = lstatSync(folder);
  if (!found.isDirectory() || found.uid !== process.getuid?.()) {
    throw new VmmError('ERR_SETUP', `${folder} is not a folder of this user`);
  }
  chmodSync(folder, 0o700);
  return folder;
}

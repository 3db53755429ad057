/**
 * Where this user's own files lie: the cache, which may be deleted at any time, and runtime folders, whose locks and
 * sockets mean something only while their processes live. All processes of a user have to find the same runtime folders,
 * those of a login session and those of a service alike, unless somebody has set a place apart on purpose.
 * Makes folders for this user alone; holds no policy.
 */
import { chmodSync, lstatSync, mkdirSync, statSync, type Stats } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { VmmError } from './errors.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** $XDG_CACHE_HOME/vivarium; ~/.cache/vivarium where that is unset or not absolute (XDG Base Directory, "cache"). */
export function cacheRoot(env: Environment = process.env): string {
  const xdg = env['XDG_CACHE_HOME'];
  return join(xdg !== undefined && isAbsolute(xdg) ? xdg : join(env['HOME'] ?? homedir(), '.cache'), 'vivarium');
}

/**
 * The runtime folder NAME, made if need be:
 *
 * 1. $XDG_RUNTIME_DIR/vivarium/NAME where that variable names a folder of this user which is not the session's;
 * 2. else /run/user/UID/vivarium/NAME (pam_systemd(8)) where that is a folder of this user with mode 0700, whether the
 *    variable names it or not: it is in the environment of a login, not in that of cron, a service or `su`;
 * 3. else NAME in the cache.
 *
 * `session` is a parameter for tests.
 *
 * @throws VmmError ERR_SETUP when it belongs to another user or can't be made.
 */
export function runtimeFolder(name: string, env: Environment = process.env, session = sessionFolder()): string {
  const folder = join(runtimeRoot(env, session), name);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new VmmError('ERR_SETUP', `${folder} can't be made: ${(error as Error).message}`, { cause: error });
  }
  const found = lstatSync(folder);
  if (!isOwn(found)) {
    throw new VmmError('ERR_SETUP', `${folder} is not a folder of this user`);
  }
  if ((found.mode & 0o777) !== 0o700) chmodSync(folder, 0o700);
  return folder;
}

function sessionFolder(): string {
  return `/run/user/${process.getuid?.() ?? 0}`;
}

function runtimeRoot(env: Environment, session: string): string {
  const xdg = env['XDG_RUNTIME_DIR'];
  // One of another user's is what `sudo` may leave: what root makes there would lock that user out.
  if (xdg !== undefined && isAbsolute(xdg) && resolve(xdg) !== session && isOwn(find(xdg)))
    return join(xdg, 'vivarium');
  const found = find(session);
  return isOwn(found) && (found.mode & 0o777) === 0o700 ? join(session, 'vivarium') : cacheRoot(env);
}

/** What is there; undefined also where nobody may look. */
function find(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function isOwn(found: Stats | undefined): found is Stats {
  return found?.isDirectory() === true && found.uid === process.getuid?.();
}

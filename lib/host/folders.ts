/**
 * Where things of the embedded host lie: the package this file belongs to, the user's runtime folder with the socket,
 * the lock and the log. Makes folders for this user alone; holds no policy.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VmmError } from '../base/errors.js';
import { runtimeFolder } from '../base/user-folders.js';

/** The folder of the package, seen from lib/host or dist/host alike. */
export const PACKAGE_ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A file of the built package. @throws VmmError ERR_SETUP when the package is not built. */
export function builtFile(...names: string[]): string {
  const path = join(PACKAGE_ROOT, 'dist', ...names);
  if (existsSync(path)) return path;
  throw new VmmError('ERR_SETUP', `${path} is missing: vivarium is not built`, { cure: 'npm run build' });
}

export interface HostFolders {
  /** Socket, lock, log; for this user alone. */
  readonly runtime: string;
  readonly socket: string;
  readonly lock: string;
  readonly log: string;
}

/** Longest path that a UNIX socket's address holds (sun_path, unix(7)), less its NUL and a draft's suffix. */
const MAX_SOCKET_PATH_BYTES = 96;

/**
 * The user's runtime folder for the embedded host (base/user-folders.ts says where); made if need be.
 *
 * @throws VmmError ERR_SETUP when the folder belongs to another user or can't be made, or its path is too long.
 */
export function hostFolders(env: Readonly<Record<string, string | undefined>> = process.env): HostFolders {
  const runtime = runtimeFolder('host-run', env);
  const socket = join(runtime, 'host.sock');
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES) {
    throw new VmmError('ERR_SETUP', `${socket} is too long for the address of a socket`, {
      cure: 'set XDG_RUNTIME_DIR or XDG_CACHE_HOME to a shorter path',
    });
  }
  return { runtime, socket, lock: join(runtime, 'host.lock'), log: join(runtime, 'host.log') };
}

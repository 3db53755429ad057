/**
 * How paths of this machine read inside the embedded host. The whole file system of the machine is mounted at /host
 * there, and its top-level folders again at their own places, except those that the host has of its own; so most paths
 * mean the same on both sides, and the rest are translated here. Also refuses what 9p can't carry, in the user's words.
 */
import { readdirSync, readlinkSync, realpathSync, statSync, type Stats } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { VmmError } from '../base/errors.js';

/** Where the whole file system of the machine is, inside. */
export const OUTER_ROOT = '/host';

/** Top-level folders that the embedded host has of its own. */
export const OWN_FOLDERS: ReadonlySet<string> = new Set([
  'bin',
  'sbin',
  'lib',
  'lib32',
  'lib64',
  'libx32',
  'dev',
  'proc',
  'sys',
  'run',
  'etc',
  'host',
  'init',
  'vivarium',
]);

/** A top-level name that is the same inside: a folder, or a link with its target. */
export interface SharedFolder {
  readonly name: string;
  readonly linkTarget?: string;
}

/** The top-level folders and links of this machine that the embedded host shows at their own places. */
export function sharedFolders(root = '/'): SharedFolder[] {
  const shared: SharedFolder[] = [];
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (OWN_FOLDERS.has(entry.name)) continue;
    if (entry.isDirectory()) shared.push({ name: entry.name });
    else if (entry.isSymbolicLink())
      shared.push({ name: entry.name, linkTarget: readlinkSync(join(root, entry.name)) });
  }
  return shared;
}

/**
 * The path inside the embedded host of a path of this machine; relative paths count from `cwd`.
 * The file need not be there, its folder need not either.
 *
 * @throws VmmError ERR_EMBEDDED_HOST for what is not reachable from inside: devices, pipes, sockets, /proc and /sys.
 * @example toInnerPath('/home/me/vmlinuz') // '/home/me/vmlinuz'
 * @example toInnerPath('/lib/modules/x') // '/host/usr/lib/modules/x', where /lib is a link to usr/lib
 */
export function toInnerPath(path: string, cwd = process.cwd()): string {
  const absolute = resolve(cwd, path);
  const real = realAncestor(absolute);
  const top = real.split('/')[1] ?? '';
  refuseUnreachable(absolute, top);
  // Links on the way that lead through an own folder would lead elsewhere inside, so the real path is what counts.
  if (OWN_FOLDERS.has(top)) return OUTER_ROOT + real;
  return OWN_FOLDERS.has(absolute.split('/')[1] ?? '') || crossesOwnFolder(absolute) ? real : absolute;
}

/** The path outside of a path inside: the reverse, for messages. */
export function toOuterPath(path: string): string {
  return path === OUTER_ROOT ? '/' : path.startsWith(`${OUTER_ROOT}/`) ? path.slice(OUTER_ROOT.length) : path;
}

/** The real path of the deepest ancestor that is there, with the rest appended. */
function realAncestor(absolute: string): string {
  const rest: string[] = [];
  for (let ancestor = absolute; ; ancestor = dirname(ancestor)) {
    try {
      return join(realpathSync(ancestor), ...rest);
    } catch {
      if (ancestor === '/') return absolute;
      rest.unshift(basename(ancestor));
    }
  }
}

/** As many links as the kernel follows on one way (MAXSYMLINKS in include/linux/namei.h). */
const MAX_LINKS = 40;

/** Whether a symbolic link on the way names an own folder by an absolute path. */
function crossesOwnFolder(absolute: string, links = 0): boolean {
  let here = '/';
  for (const name of absolute.split('/').filter((part) => part !== '')) {
    here = join(here, name);
    try {
      const target = resolve(dirname(here), readlinkSync(here));
      if (OWN_FOLDERS.has(target.split('/')[1] ?? '')) return true;
      if (links < MAX_LINKS && crossesOwnFolder(target, links + 1)) return true;
    } catch {
      // no link, or not there: nothing is crossed here
    }
  }
  return false;
}

/** Undefined when it is not there, or can't be looked at: opening it will say why. */
function kindOf(absolute: string): Stats | undefined {
  try {
    return statSync(absolute);
  } catch {
    return undefined;
  }
}

function refuseUnreachable(absolute: string, top: string): void {
  const refuse = (what: string): never => {
    throw new VmmError('ERR_EMBEDDED_HOST', `${absolute} is ${what}, which can't be reached from the embedded host`, {
      cure: 'use a regular file, or a machine whose own KVM runs Linux guests',
    });
  };
  if (top === 'proc' || top === 'sys') refuse(`in /${top}`);
  const kind = kindOf(absolute);
  if (kind === undefined) return;
  if (kind.isBlockDevice() || kind.isCharacterDevice()) refuse('a device');
  if (kind.isFIFO()) refuse('a pipe');
  if (kind.isSocket()) refuse('a socket');
}

/**
 * What the process that holds a machine is fenced in by, as its launcher has left it in the environment (lib/cli/fence-launch.ts,
 * native/fence/launcher.c). The kernel does the fencing: this only knows of it, for refusals that name their cure and for `inspect`.
 */
import { existsSync, realpathSync } from 'node:fs';
import { dirname, resolve, sep } from 'node:path';
import { VmmError } from './errors.js';

/** What whoever started the process has asked of the launcher; JSON. */
export const FENCE_VARIABLE = 'VIVARIUM_FENCE';
/** The version of Landlock that holds the process; set by the launcher. */
export const FENCED_VARIABLE = 'VIVARIUM_FENCED';
/** Set by the process itself, once it has given up system calls. */
export const SEALED_VARIABLE = 'VIVARIUM_SEALED';
/** The descriptor over which passt is asked for (native/fence/keeper.h); set by the launcher. */
export const PASST_KEEPER_VARIABLE = 'VIVARIUM_PASST_KEEPER';

/** Networks that a machine is on, each of which needs something that others do not. */
export interface FenceNetworks {
  readonly tap: boolean;
  /** It connects to sockets of the user's other processes. */
  readonly switch: boolean;
  /** It is started as a process, with namespaces of its own: by a keeper outside of the fence. */
  readonly passt: boolean;
}

export interface FenceAsked {
  /** Why paths are not fenced; undefined where they are, if the kernel has Landlock. */
  readonly open?: string | undefined;
  /** The guest is in the embedded host. What this process starts there serves other machines too, so it gives up no system calls. */
  readonly carries?: boolean;
  /** Files, and folders with all that is below, that may be changed. Resolved. */
  readonly write: readonly string[];
  readonly networks: FenceNetworks;
}

export interface Fence extends FenceAsked {
  /** The version of Landlock; 0: paths are not fenced. */
  readonly landlock: number;
  /** Whether system calls are given up (lib/kvm/seal.ts). */
  readonly sealed: boolean;
}

/** Undefined in a process that no launcher has started. */
export function fenceOf(env: Readonly<Record<string, string | undefined>> = process.env): Fence | undefined {
  const [asked, fenced] = [env[FENCE_VARIABLE], env[FENCED_VARIABLE]];
  if (asked === undefined || fenced === undefined) return undefined;
  return { ...(JSON.parse(asked) as FenceAsked), landlock: Number(fenced), sealed: env[SEALED_VARIABLE] !== undefined };
}

/** The socket on which a process that is fenced asks for passt; undefined in one that starts it itself. */
export function passtKeeperOf(env: Readonly<Record<string, string | undefined>> = process.env): number | undefined {
  const number = env[PASST_KEEPER_VARIABLE];
  return number === undefined || fenceOf(env) === undefined ? undefined : Number(number);
}

/**
 * Before something is made in `folder`, or the file of that name is written.
 *
 * @throws VmmError ERR_FENCED where the fence does not let it, with the option that does.
 */
export function requireWritable(folder: string, fence: Fence | undefined): void {
  if (fence === undefined || fence.landlock === 0) return;
  const real = realPathOf(folder);
  if (fence.write.some((allowed) => isWithin(real, allowed))) return;
  throw new VmmError('ERR_FENCED', `${folder}: the machine's process is fenced, and may not write there`, {
    cure: `start the machine with --allow-path ${folder}, or take a place within ${fence.write.join(', ')}`,
  });
}

/**
 * What a call failed with, told as the fence's doing where it is: a file that was to be made beside another, in a folder that is not lent.
 * Any other error is as it was.
 */
export function orFenced(error: unknown, fence: Fence | undefined): unknown {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code, path } = at as NodeJS.ErrnoException;
    // One that is there is not to be made.
    if (code !== 'EACCES' || path === undefined || existsSync(path)) continue;
    try {
      requireWritable(dirname(path), fence);
    } catch (fenced) {
      if (!(fenced instanceof VmmError) || fenced.cure === undefined) throw fenced;
      return new VmmError(fenced.code, fenced.message, { cure: fenced.cure, cause: error });
    }
  }
  return error;
}

/**
 * Before a network of that kind is opened.
 *
 * @throws VmmError ERR_FENCED where the process has given up what it needs.
 */
export function requireNetwork(kind: keyof FenceNetworks, fence: Fence | undefined): void {
  if (fence === undefined || fence.networks[kind] || (!fence.sealed && fence.landlock === 0)) return;
  throw new VmmError('ERR_FENCED', `${kind}: the machine's process is fenced, and has given up what that needs`, {
    cure: `start the machine with a nic on such a network, or with --no-fence`,
  });
}

export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** As the kernel resolves it, also of what is not there yet. */
export function realPathOf(path: string): string {
  let there = resolve(path);
  while (!existsSync(there)) there = dirname(there);
  return resolve(realpathSync(there), `.${resolve(path).slice(there === sep ? 0 : there.length)}`);
}

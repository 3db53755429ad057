/**
 * A lock among processes, as a file that names its holder, for the cache folder.
 * It spares double work; it does not have to be perfect, because what it guards is published by one atomic rename.
 * A holder that died, by its process's absence or a new start time, is taken over at once.
 */
import { randomBytes } from 'node:crypto';
import { link, readFile, readlink, rename, rm, stat, writeFile } from 'node:fs/promises';
import { readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { AbortError } from '../base/errors.js';

/** Who holds a lock: enough to tell a living process from one that only has the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: clock ticks from boot to the process's start. */
  readonly startTicks: string;
  readonly bootId: string;
  /** The process-number namespace, since numbers of another one say nothing here. */
  readonly pidNamespace: string;
}

const POLL_MS = 50;
/** A holder in another process-number namespace can't be looked up; its lock counts for this long. */
const FOREIGN_LOCK_MAX_AGE_MS = 30 * 60 * 1000;

let ownIdentity: ProcessIdentity | undefined;

export function processIdentity(): ProcessIdentity {
  ownIdentity ??= {
    pid: process.pid,
    startTicks: startTicksOf(readFileSync('/proc/self/stat', 'latin1')),
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim(),
    pidNamespace: readlinkSync('/proc/self/ns/pid'),
  };
  return ownIdentity;
}

/** The start time out of a line of /proc/PID/stat; the command's name in it may hold spaces and parentheses. */
export function startTicksOf(statLine: string): string {
  const fields = statLine.slice(statLine.lastIndexOf(')') + 2).split(' ');
  return fields[19] ?? '';
}

/** Whether the process that `identity` names still runs; undefined when that can't be known from here. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean | undefined> {
  if (identity.bootId !== processIdentity().bootId) return false;
  if (identity.pidNamespace !== (await readlink('/proc/self/ns/pid'))) return undefined;
  try {
    return startTicksOf(await readFile(`/proc/${identity.pid}/stat`, 'latin1')) === identity.startTicks;
  } catch {
    return false;
  }
}

/**
 * Takes the lock at `path`, waiting for a living holder as long as it lives; resolves to what lets it go.
 *
 * @throws AbortError when the signal fires while waiting.
 */
export async function acquireLock(
  path: string,
  options: { signal?: AbortSignal | undefined; onWait?: ((holderPid: number) => void) | undefined } = {},
): Promise<() => Promise<void>> {
  const token = randomBytes(6).toString('hex');
  const own = JSON.stringify({ ...processIdentity(), token });
  let told = false;
  for (;;) {
    if (options.signal?.aborted === true) throw new AbortError(options.signal);
    if (await createWhole(path, own, token)) {
      return async () => {
        if ((await readOrUndefined(path)) === own) await rm(path, { force: true });
      };
    }
    const held = await readOrUndefined(path);
    if (held === undefined) continue;
    const holder = parseIdentity(held);
    if (holder === undefined || !(await counts(holder, path))) {
      await removeStale(path, held, token);
      continue;
    }
    if (!told) options.onWait?.(holder.pid);
    told = true;
    try {
      await delay(POLL_MS, undefined, options.signal === undefined ? {} : { signal: options.signal });
    } catch {
      throw new AbortError(options.signal);
    }
  }
}

/** Creates the file with its content in one step (a link to a finished file), so that nobody ever reads half a lock. */
async function createWhole(path: string, content: string, token: string): Promise<boolean> {
  const draft = `${path}.${token}`;
  await writeFile(draft, content);
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

async function counts(holder: ProcessIdentity, path: string): Promise<boolean> {
  const alive = await isAlive(holder);
  if (alive !== undefined) return alive;
  try {
    return Date.now() - (await stat(path)).mtimeMs < FOREIGN_LOCK_MAX_AGE_MS;
  } catch {
    return false;
  }
}

/** Moves the lock away and looks again: if it was somebody's new one by then, it is put back. */
async function removeStale(path: string, staleContent: string, token: string): Promise<void> {
  const aside = `${path}.${token}.stale`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  if ((await readOrUndefined(aside)) !== staleContent) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
}

async function readOrUndefined(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

function parseIdentity(text: string): ProcessIdentity | undefined {
  try {
    const value = JSON.parse(text) as Partial<ProcessIdentity>;
    if (typeof value.pid !== 'number' || typeof value.startTicks !== 'string') return undefined;
    if (typeof value.bootId !== 'string' || typeof value.pidNamespace !== 'string') return undefined;
    return value as ProcessIdentity;
  } catch {
    return undefined;
  }
}

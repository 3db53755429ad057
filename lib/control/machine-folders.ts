/**
 * Where the named machines of a user are found: a folder for each in the runtime folder, with a lock that its process
 * holds, a record of who that is, and the control socket. The kernel drops the lock with the process, so what a killed one
 * has left means nothing and is cleared by whoever comes next. Opens no socket and speaks to no machine.
 *
 *     machines/NAME/lock  machine.json  sock  log  ended.json  output
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SystemError, VmmError } from '../base/errors.js';
import { fenceOf } from '../base/fence.js';
import { isMachineName, MACHINE_NAME_RULE } from '../base/machine-name.js';
import { runtimeFolder } from '../base/user-folders.js';
import { isAlive, processIdentity, type ProcessIdentity } from '../images/lock.js';
import { lockFile } from '../memory/index.js';

/** Who a machine is, as its folder says. */
export interface MachineRecord {
  readonly name: string;
  /** Different for each machine that ever had the name. */
  readonly id: string;
  /** Of the process of this machine that holds it; in the embedded host it is the one outside. */
  readonly pid: number;
  readonly host: 'native' | 'embedded';
  /** When it was claimed, as ISO 8601 text. */
  readonly since: string;
}

/** How a machine ended, kept until its name is used again. */
export interface EndedRecord extends MachineRecord {
  readonly endedAt: string;
  /** What the command would have exited with. */
  readonly status: number;
  readonly reason: string;
}

/** What is to be known of a machine when it has ended. */
export interface EndToRemember {
  readonly status: number;
  readonly reason: string;
  /** The last of what its guest has printed. */
  readonly output?: readonly Uint8Array[];
}

/** Where the folders are and how they are locked; parameters for tests. */
export interface MachinePlace {
  readonly folder: string;
  readonly lock: (fd: number, mode: 'exclusive') => boolean;
}

/** Longest path that a UNIX socket's address holds (sun_path, unix(7)), less its NUL. */
const LOCK = 'lock';
const MAX_SOCKET_PATH_BYTES = 107;
/** Ended machines that are remembered. */
const KEPT_ENDED = 32;
/** How long somebody who clears up may hold the lock of a name. */
const CLEARING_MS = 2000;
const POLL_MS = 10;

/** @throws TypeError */
export function checkMachineName(name: unknown): string {
  if (isMachineName(name)) return name;
  throw new TypeError(`name: ${JSON.stringify(name)} is no name; ${MACHINE_NAME_RULE}`);
}

export function defaultPlace(env: Readonly<Record<string, string | undefined>> = process.env): MachinePlace {
  return { folder: runtimeFolder('machines', env), lock: lockFile };
}

export function socketOf(name: string, { folder }: MachinePlace): string {
  return join(folder, name, 'sock');
}

/** A name that is this process's until it is released. */
export class MachineClaim {
  readonly record: MachineRecord;
  readonly folder: string;
  readonly #fd: number;
  #released = false;

  constructor(record: MachineRecord, folder: string, fd: number) {
    this.record = record;
    this.folder = folder;
    this.#fd = fd;
  }

  get socketPath(): string {
    return join(this.folder, 'sock');
  }

  /** What the process has to say, when nobody listens to it. */
  get logPath(): string {
    return join(this.folder, 'log');
  }

  /** Gives the name up. With `end` it is remembered how the machine ended, else nothing stays. Idempotent. */
  release(end?: EndToRemember, wallMs: number = Date.now()): void {
    if (this.#released) return;
    this.#released = true;
    try {
      if (end === undefined) clearFolder(this.folder);
      else {
        const { status, reason, output = [] } = end;
        const ended: EndedRecord = { ...this.record, status, reason, endedAt: new Date(wallMs).toISOString() };
        writeFileSync(join(this.folder, 'output'), Buffer.concat(output), { mode: 0o600 });
        writeWhole(join(this.folder, 'ended.json'), ended);
        for (const name of ['sock', 'machine.json']) rmSync(join(this.folder, name), { force: true });
      }
    } catch {
      // Somebody cleared the folder; the lock is what counts.
    }
    closeSync(this.#fd);
  }
}

/**
 * Takes the name for this process; what a process that was killed left under it goes.
 *
 * @throws TypeError for what is no name; VmmError ERR_NAME_TAKEN when a machine of this user that runs has it, ERR_SETUP when the
 *   runtime folder can't be had or its path is too long for a socket; SystemError.
 */
export async function claimName(
  name: string,
  about: { readonly host: 'native' | 'embedded'; readonly wallMs?: number },
  place: MachinePlace = defaultPlace(),
): Promise<MachineClaim> {
  checkMachineName(name);
  const socket = socketOf(name, place);
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES) {
    throw new VmmError('ERR_SETUP', `${socket} is too long for the address of a socket`, {
      cure: 'a shorter --name, or XDG_RUNTIME_DIR with a shorter path',
    });
  }
  const fd = await lockOrRefuse(name, place);
  try {
    const folder = join(place.folder, name);
    for (const left of ['sock', 'machine.json', 'log', 'ended.json', 'output'])
      rmSync(join(folder, left), { force: true });
    const record: MachineRecord = {
      name,
      id: randomBytes(6).toString('hex'),
      pid: process.pid,
      host: about.host,
      since: new Date(about.wallMs ?? Date.now()).toISOString(),
    };
    writeWhole(join(folder, 'machine.json'), { ...record, holder: processIdentity() });
    // Else whoever has started this process has done so.
    if ((fenceOf()?.landlock ?? 0) === 0) forgetOldest(place);
    return new MachineClaim(record, folder, fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * For a process that may change nothing but what is in its own folder: makes that, and forgets the oldest of those that have ended.
 *
 * @throws TypeError, VmmError ERR_SETUP, SystemError
 */
export function readyFolder(name: string, place: MachinePlace = defaultPlace()): void {
  mkdirSync(join(place.folder, checkMachineName(name)), { recursive: true, mode: 0o700 });
  forgetOldest(place);
}

/** Waits only for who clears up after a process that died. */
async function lockOrRefuse(name: string, place: MachinePlace): Promise<number> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const fd = tryLock(name, place);
    if (fd !== undefined) return fd;
    const found = readRecord(name, place);
    const alive = found !== undefined && (await isAlive(found.holder)) !== false;
    if (alive || waitedMs >= CLEARING_MS) {
      const who = found === undefined ? 'another process' : `process ${found.record.pid}`;
      throw new VmmError('ERR_NAME_TAKEN', `a machine named ${name} is there already, held by ${who}`, {
        cure: `another name, or first: vivarium stop ${name}`,
      });
    }
    await delay(POLL_MS);
  }
}

/** The descriptor that holds the lock; undefined when somebody else has it. */
function tryLock(name: string, place: MachinePlace): number | undefined {
  const folder = join(place.folder, name);
  const path = join(folder, LOCK);
  for (;;) {
    let fd: number;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    } catch (error) {
      const { code = 'EIO', errno = 0 } = error as NodeJS.ErrnoException;
      // Between the two somebody has cleared the folder.
      if (code === 'ENOENT') continue;
      throw new SystemError('open', code, Math.abs(errno), path);
    }
    let kept = false;
    try {
      if (!place.lock(fd, 'exclusive')) return undefined;
      // The folder may have been cleared between our two steps: the lock then is one on nothing.
      const [found, own] = [statSync(path, { throwIfNoEntry: false }), fstatSync(fd)];
      if (found?.ino !== own.ino || found.dev !== own.dev) continue;
      kept = true;
      return fd;
    } finally {
      if (!kept) closeSync(fd);
    }
  }
}

/** The machines of this user whose records are there; one that was killed may be among them. By name. */
export function listRecords(place: MachinePlace = defaultPlace()): MachineRecord[] {
  return names(place)
    .map((name) => readRecord(name, place)?.record)
    .filter((record) => record !== undefined);
}

/** The record of one machine, which may have been killed; undefined when there is none. @throws TypeError */
export function recordOf(name: string, place: MachinePlace = defaultPlace()): MachineRecord | undefined {
  return readRecord(checkMachineName(name), place)?.record;
}

/** How the last machine of that name ended; undefined when that is not known. @throws TypeError */
export function endedRecordOf(name: string, place: MachinePlace = defaultPlace()): EndedRecord | undefined {
  const found = readJson(join(place.folder, checkMachineName(name), 'ended.json'));
  const { status, endedAt, reason } = found ?? {};
  const known = typeof status === 'number' && typeof endedAt === 'string' && typeof reason === 'string';
  return known && isRecord(found, name) ? (found as unknown as EndedRecord) : undefined;
}

/** The last that its guest has printed. */
export function endedOutputOf(name: string, place: MachinePlace = defaultPlace()): Buffer {
  try {
    return readFileSync(join(place.folder, checkMachineName(name), 'output'));
  } catch {
    return Buffer.alloc(0);
  }
}

/** Those that are remembered, by name. */
export function listEnded(place: MachinePlace = defaultPlace()): EndedRecord[] {
  return names(place)
    .map((name) => endedRecordOf(name, place))
    .filter((record) => record !== undefined);
}

/** Clears what a killed process left under a name; false, and nothing is done, while a process holds it. */
export function clearDead(name: string, place: MachinePlace = defaultPlace()): boolean {
  const fd = tryLock(name, place);
  if (fd === undefined) return false;
  try {
    // One that ended in order has left its record, and its successor's claim would have our lock.
    if (endedRecordOf(name, place) === undefined) clearFolder(join(place.folder, name));
    return true;
  } finally {
    closeSync(fd);
  }
}

/**
 * With its lock held. The lock is the last file to go: behind it another process may have the name, and then what is in the folder is that
 * one's, and stays.
 */
function clearFolder(folder: string): void {
  for (const entry of readdirSync(folder)) {
    if (entry !== LOCK) rmSync(join(folder, entry), { recursive: true, force: true });
  }
  rmSync(join(folder, LOCK), { force: true });
  try {
    rmdirSync(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'ENOENT') throw error;
  }
}

function names({ folder }: MachinePlace): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && isMachineName(entry.name))
    .map(({ name }) => name)
    .sort();
}

/** What can't be cleared now stays: it is no reason to refuse anybody a name. */
function forgetOldest(place: MachinePlace): void {
  const ended = listEnded(place).sort((a, b) => (a.endedAt < b.endedAt ? 1 : -1));
  for (const { name, id } of ended.slice(KEPT_ENDED)) {
    try {
      forget(name, id, place);
    } catch {
      // A folder of somebody else's making, or a full disk.
    }
  }
}

function forget(name: string, id: string, place: MachinePlace): void {
  const fd = tryLock(name, place);
  if (fd === undefined) return;
  try {
    // Since it was listed the name may have been used once more: that one ended last.
    if (endedRecordOf(name, place)?.id === id) clearFolder(join(place.folder, name));
  } finally {
    closeSync(fd);
  }
}

function readRecord(
  name: string,
  place: MachinePlace,
): { readonly record: MachineRecord; readonly holder: ProcessIdentity } | undefined {
  const found = readJson(join(place.folder, name, 'machine.json'));
  if (!isRecord(found, name) || !isIdentity(found?.['holder'])) return undefined;
  const { holder, ...record } = found as unknown as MachineRecord & { holder: ProcessIdentity };
  return { record, holder };
}

function isIdentity(value: unknown): value is ProcessIdentity {
  const { pid, startTicks, bootId, pidNamespace } = (value ?? {}) as Partial<Record<keyof ProcessIdentity, unknown>>;
  return typeof pid === 'number' && [startTicks, bootId, pidNamespace].every((text) => typeof text === 'string');
}

function isRecord(found: Record<string, unknown> | undefined, name: string): boolean {
  return (
    found?.['name'] === name &&
    typeof found['id'] === 'string' &&
    typeof found['pid'] === 'number' &&
    typeof found['since'] === 'string' &&
    (found['host'] === 'native' || found['host'] === 'embedded')
  );
}

function readJson(path: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Nobody ever reads half of it. */
function writeWhole(path: string, value: unknown): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(value)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

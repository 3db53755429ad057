/**
 * The Ethernet addresses of this user's machines, so that no two of them that live at the same time have one in common:
 * a file for each in the runtime folder, whose lock is held as long as the machine is open. The kernel drops the lock
 * with the process; a file without a lock means nothing and is taken over.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { SystemError, VmmError } from '../base/errors.js';
import { runtimeFolder } from '../base/user-folders.js';
import { lockFile } from '../memory/index.js';
import { formatMac, macAt } from '../vsp/index.js';

export interface MacClaim {
  readonly mac: number;
  /** Idempotent. */
  release(): void;
}

export interface MacClaimRequest {
  /** The machine's name, for the default address and for whoever is refused. */
  readonly machine: string;
  /** The nic's. */
  readonly id: string;
  /** Undefined: the first of the default's series that nobody has. */
  readonly mac: number | undefined;
}

/** Where the files are, and how they are locked; parameters for tests. */
export interface MacClaimPlace {
  readonly folder: string;
  readonly lock: (fd: number, mode: 'exclusive') => boolean;
}

/** Machines of one name with one id that live at the same time. */
const MAX_NAMESAKES = 1024;

/**
 * An address for a nic. Two machines whose nics have the same id, and which have the same name, get different ones as
 * long as both are open; the first of them always gets the same. Users and hosts differ too, since they may share a LAN.
 *
 * @throws VmmError ERR_STATE when another machine of this user has the address that is wanted; ERR_SETUP, ERR_SYSTEM.
 */
export function claimMac(request: MacClaimRequest, place: MacClaimPlace = defaultPlace()): MacClaim {
  const { machine, id, mac } = request;
  if (mac !== undefined) {
    const claim = tryClaim(mac, request, place);
    if (claim !== undefined) return claim;
    const holder = holderOf(mac, place);
    throw new VmmError('ERR_STATE', `nic ${id}: ${formatMac(mac)} is the address of ${holder}`, {
      cure: 'another address, or none for one that is free',
    });
  }
  for (let namesake = 0; namesake < MAX_NAMESAKES; namesake++) {
    const derived = derivedMac([hostIdentity(), process.getuid?.() ?? 0, machine, id, namesake]);
    const claim = tryClaim(derived, request, place);
    if (claim !== undefined) return claim;
  }
  throw new VmmError('ERR_STATE', `nic ${id}: ${MAX_NAMESAKES} open machines named ${machine} have one of that id`);
}

/** 46 bits of a hash: locally administered, no group (IEEE 802, 8.2). */
function derivedMac(parts: readonly (string | number)[]): number {
  const bytes = createHash('sha256').update(JSON.stringify(parts)).digest();
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return macAt(bytes, 0);
}

function tryClaim(mac: number, { machine, id }: MacClaimRequest, place: MacClaimPlace): MacClaim | undefined {
  const path = pathOf(mac, place);
  for (;;) {
    const fd = orSystemError('open', path, () => openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600));
    let claim: MacClaim | undefined;
    try {
      if (!place.lock(fd, 'exclusive')) return undefined;
      // Whoever had it may have removed the file between our two steps: the lock then is one on nothing.
      if (!isSameFile(fd, path)) continue;
      orSystemError('ftruncate', path, () => ftruncateSync(fd));
      orSystemError('write', path, () => writeSync(fd, `nic ${id} of machine ${machine}, process ${process.pid}`));
      claim = { mac, release: releaseOnce(fd, path) };
      return claim;
    } finally {
      if (claim === undefined) closeSync(fd);
    }
  }
}

function orSystemError<T>(syscall: string, path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const { code = 'EIO', errno = 0 } = error as NodeJS.ErrnoException;
    throw new SystemError(syscall, code, Math.abs(errno), path);
  }
}

function releaseOnce(fd: number, path: string): () => void {
  let released = false;
  return () => {
    if (released) return;
    released = true;
    try {
      unlinkSync(path);
    } catch {
      // Somebody cleared the folder.
    }
    closeSync(fd);
  };
}

function isSameFile(fd: number, path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  const own = fstatSync(fd);
  return found !== undefined && found.ino === own.ino && found.dev === own.dev;
}

function holderOf(mac: number, place: MacClaimPlace): string {
  try {
    const text = readFileSync(pathOf(mac, place), 'utf8');
    if (text !== '') return text;
  } catch {
    // It has just gone.
  }
  return 'another machine of this user';
}

function pathOf(mac: number, { folder }: MacClaimPlace): string {
  return join(folder, formatMac(mac).replaceAll(':', '-'));
}

function defaultPlace(): MacClaimPlace {
  return { folder: runtimeFolder('macs'), lock: lockFile };
}

/** What tells this host from others of its network: machine-id(5), which is only used hashed, else its name. */
function hostIdentity(): string {
  try {
    const id = readFileSync('/etc/machine-id', 'utf8').trim();
    if (id !== '') return id;
  } catch {
    // Not every container has one.
  }
  return hostname();
}

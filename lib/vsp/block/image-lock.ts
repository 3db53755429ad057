/**
 * Advisory locks on disk images: one writer, or any number of readers. The kernel's lock keeps other processes out; the
 * table here lets one device have its image open twice for the moment of a rebind, which the kernel would refuse. Each
 * lock has a descriptor of its own, so that it lives as long as the last backend of its owner; when its last writer goes
 * (the image is only read through another one from then on) it becomes a reader's.
 */
import { closeSync, constants, openSync } from 'node:fs';

export type LockMode = 'shared' | 'exclusive';

/**
 * Takes the lock of an open file, or changes its mode, without waiting. False: somebody else has it. The lock goes
 * with the open file (F_OFD_SETLK); 'exclusive' needs a descriptor that can write.
 *
 * @throws VmmError ERR_SYSTEM where the file system has no locks.
 */
export type LockFile = (fd: number, mode: LockMode) => boolean;

interface Held {
  readonly owner: object;
  readonly fd: number;
  mode: LockMode;
  users: number;
  /** Of them, those that write. */
  writers: number;
}

export interface ImageLock {
  /** Idempotent. */
  release(): void;
}

/** By device and inode: locks that this process has. */
const table = new Map<string, Held[]>();

export interface LockRequest {
  /** An open descriptor of the image, with write access when the mode is exclusive. */
  readonly fd: number;
  readonly dev: number | bigint;
  readonly ino: number | bigint;
  readonly mode: LockMode;
  readonly owner: object;
  readonly lockFile: LockFile;
}

/** The lock, or undefined when another device or process has one that excludes it. */
export function lockImage(request: LockRequest): ImageLock | undefined {
  const { mode, owner, lockFile } = request;
  const key = `${request.dev}:${request.ino}`;
  const all = table.get(key) ?? [];
  const others = all.filter((held) => held.owner !== owner);
  const mine = all.find((held) => held.owner === owner);
  if (others.some((held) => mode === 'exclusive' || held.mode === 'exclusive')) return undefined;
  if (mine) {
    if (mode === 'exclusive' && mine.mode === 'shared') {
      if (!lockFile(mine.fd, 'exclusive')) return undefined;
      mine.mode = 'exclusive';
    }
    mine.users++;
    if (mode === 'exclusive') mine.writers++;
    return releaseOnce(key, mine, request);
  }
  // Always able to write where that is allowed, so that a reader's lock can become a writer's.
  const fd = reopen(request.fd, mode);
  try {
    if (!lockFile(fd, mode)) {
      closeSync(fd);
      return undefined;
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const held: Held = { owner, fd, mode, users: 1, writers: mode === 'exclusive' ? 1 : 0 };
  table.set(key, [...all, held]);
  return releaseOnce(key, held, request);
}

function reopen(fd: number, mode: LockMode): number {
  const path = `/proc/self/fd/${fd}`;
  try {
    return openSync(path, constants.O_RDWR);
  } catch (error) {
    if (mode === 'exclusive') throw error;
    return openSync(path, constants.O_RDONLY);
  }
}

function releaseOnce(key: string, held: Held, { mode, lockFile }: LockRequest): ImageLock {
  let released = false;
  return {
    release() {
      if (released) return;
      released = true;
      if (mode === 'exclusive') held.writers--;
      if (--held.users > 0) {
        if (held.mode === 'exclusive' && held.writers === 0) share(held, lockFile);
        return;
      }
      const left = (table.get(key) ?? []).filter((other) => other !== held);
      if (left.length === 0) table.delete(key);
      else table.set(key, left);
      closeSync(held.fd);
    },
  };
}

/** Where that fails it stays as it is: others find the image locked. */
function share(held: Held, lockFile: LockFile): void {
  try {
    if (lockFile(held.fd, 'shared')) held.mode = 'shared';
  } catch {
    // As said.
  }
}

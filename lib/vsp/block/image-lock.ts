/**
 * Advisory locks on disk images: one writer, or any number of readers. The kernel's lock keeps other processes out; the
 * table here lets one device have its image open twice for the moment of a rebind, which the kernel would refuse. Each
 * lock has a descriptor of its own, so that it lives as long as the last backend of its owner.
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

/** Knows this process only. lib/memory/file-lock.ts takes its place where the addon is built. */
export const lockNothing: LockFile = () => true;

interface Held {
  readonly owner: object;
  readonly fd: number;
  mode: LockMode;
  users: number;
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
    return releaseOnce(key, mine);
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
  const held: Held = { owner, fd, mode, users: 1 };
  table.set(key, [...all, held]);
  return releaseOnce(key, held);
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

function releaseOnce(key: string, held: Held): ImageLock {
  let released = false;
  return {
    release() {
      if (released) return;
      released = true;
      if (--held.users > 0) return;
      const left = (table.get(key) ?? []).filter((other) => other !== held);
      if (left.length === 0) table.delete(key);
      else table.set(key, left);
      closeSync(held.fd);
    },
  };
}

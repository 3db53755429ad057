/**
 * Opening the file or block device behind a disk image, for every format that stands on one: told apart by stat, opened
 * without ever waiting (a FIFO would), locked. Each thing that can be wrong with a path has its error and its cure.
 */
import { constants, type BigIntStats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { AbortError, VmmError } from '../../base/errors.js';
import { lockFile as lockFileNatively } from '../../memory/file-lock.js';
import { lockImage, type ImageLock, type LockFile } from './image-lock.js';

export interface OpenImageOptions {
  readonly readOnly: boolean;
  readonly owner?: object | undefined;
  /** Default: the addon's. */
  readonly lockFile?: LockFile | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class ImageFile {
  readonly path: string;
  readonly isBlockDevice: boolean;
  readonly readOnly: boolean;
  readonly #handle: FileHandle;
  readonly #lock: ImageLock;
  #closed: Promise<void> | undefined;

  constructor(path: string, handle: FileHandle, lock: ImageLock, isBlockDevice: boolean, readOnly: boolean) {
    this.path = path;
    this.#handle = handle;
    this.#lock = lock;
    this.isBlockDevice = isBlockDevice;
    this.readOnly = readOnly;
  }

  get fd(): number {
    return this.#handle.fd;
  }

  stat(): Promise<BigIntStats> {
    return this.#handle.stat({ bigint: true });
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#handle.close().finally(() => this.#lock.release());
    return this.#closed;
  }
}

/** @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, each with path and cure; AbortError. */
export async function openImageFile(path: string, options: OpenImageOptions): Promise<ImageFile> {
  const { readOnly, owner = {}, lockFile = lockFileNatively, signal } = options;
  if (signal?.aborted) throw new AbortError(signal);
  let handle: FileHandle | undefined;
  try {
    // Before open, which may do things to a device that is no disk.
    checkKind(path, await stat(path, { bigint: true }));
    handle = await openWithoutWaiting(path, readOnly ? constants.O_RDONLY : constants.O_RDWR);
    const stats = await handle.stat({ bigint: true });
    checkKind(path, stats);
    if (signal?.aborted) throw new AbortError(signal);
    const mode = readOnly ? 'shared' : 'exclusive';
    const lock = lockImage({ fd: handle.fd, dev: stats.dev, ino: stats.ino, mode, owner, lockFile });
    if (!lock) {
      throw new VmmError('ERR_DISK_LOCKED', `${path}: another device or process uses it`, {
        cure: readOnly ? 'end the machine that writes to it' : 'end what uses it, or give each machine its own copy',
      });
    }
    return new ImageFile(path, handle, lock, stats.isBlockDevice(), readOnly);
  } catch (error) {
    await handle?.close();
    throw error instanceof VmmError ? error : openError(path, error as NodeJS.ErrnoException, readOnly);
  }
}

/**
 * Only the opening must not wait. With O_NONBLOCK io_uring leaves a read to the thread that submits it on some file systems; 9p lets
 * that thread's signals interrupt it, and the read ends with an error of the kernel's own (-ERESTARTSYS, seen on Linux 6.1).
 */
async function openWithoutWaiting(path: string, flags: number): Promise<FileHandle> {
  const found = await open(path, flags | constants.O_NONBLOCK);
  try {
    checkKind(path, await found.stat({ bigint: true }));
    return await open(`/proc/self/fd/${found.fd}`, flags);
  } finally {
    await found.close();
  }
}

function checkKind(path: string, stats: BigIntStats): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  const is = stats.isDirectory() ? 'is a directory' : 'is neither a regular file nor a block device';
  throw new VmmError('ERR_DISK_IMAGE', `${path} ${is}`, { cure: 'name a disk image or a block device' });
}

function openError(path: string, error: NodeJS.ErrnoException, readOnly: boolean): VmmError {
  const [message, cure] = explain(path, error.code, readOnly);
  return new VmmError('ERR_DISK_IMAGE', message, { cause: error, ...(cure !== undefined && { cure }) });
}

function explain(path: string, code: string | undefined, readOnly: boolean): [string, string?] {
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return [`${path} does not exist`, `truncate -s 10G '${path}' makes an empty disk of 10 GiB`];
    case 'EACCES':
    case 'EPERM':
      return readOnly
        ? [`${path} may not be read by this user`, `chmod +r '${path}', or run as its owner`]
        : [`${path} may not be written by this user`, `readOnly: true, chmod u+w '${path}', or run as its owner`];
    case 'EROFS':
      return [`${path} is on a file system that is mounted read-only`, 'readOnly: true, or copyOnWrite'];
    case 'ETXTBSY':
      return [`${path} is in use as a program or swap file`, 'name another image'];
    case 'ENXIO':
    case 'ENODEV':
      return [`${path} is a device without a medium`, 'attach the device'];
    default:
      return [`${path} can't be opened: ${code ?? 'unknown error'}`];
  }
}

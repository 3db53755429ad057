/**
 * Files and folders of snapshots: read bounded and without following links, written for this user alone and synced. A
 * folder is held open while its files are opened, so that one that is exchanged meanwhile is not read by halves.
 */
import { constants } from 'node:fs';
import { mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { naming, systemError, writeAt } from '../base/system-call.js';
import { damaged, FileName } from './format.js';

const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Waits for all of them, since none may be under way when what they use is closed. @throws the error of the first in the list that failed
 */
export async function allEnded<T extends readonly unknown[]>(works: {
  readonly [K in keyof T]: Promise<T[K]>;
}): Promise<T> {
  const results = await Promise.allSettled(works as readonly Promise<unknown>[]);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}

/** A snapshot's folder while its files are opened. */
export class OpenFolder {
  /** As it was named, for errors. */
  readonly path: string;
  readonly #handle: FileHandle;

  private constructor(folder: string, handle: FileHandle) {
    this.path = folder;
    this.#handle = handle;
  }

  /** @throws VmmError ERR_SNAPSHOT where there is no folder; SystemError. */
  static async open(folder: string): Promise<OpenFolder> {
    try {
      return new OpenFolder(folder, await open(folder, constants.O_RDONLY | constants.O_DIRECTORY));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') throw damaged(folder, 'there is no such snapshot', error);
      if (code === 'ENOTDIR') throw damaged(folder, 'it is no folder, so it is no snapshot', error);
      throw systemError(error, folder);
    }
  }

  file(name: string): string {
    return path.join(this.path, name);
  }

  /**
   * A regular file of exactly `sizeBytes`, or of at most `maxBytes`. `identity` tells these bytes from all others: the file, and when it
   * was changed last. @throws VmmError ERR_SNAPSHOT; SystemError.
   */
  async openFile(
    name: string,
    size: { readonly sizeBytes: number } | { readonly maxBytes: number },
  ): Promise<{ handle: FileHandle; sizeBytes: number; identity: string }> {
    const file = this.file(name);
    let handle: FileHandle;
    try {
      handle = await open(`/proc/self/fd/${this.#handle.fd}/${name}`, READ_FLAGS);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' && name === FileName.MANIFEST)
        throw damaged(this.path, 'it is no snapshot: it has no manifest', error);
      if (code === 'ENOENT') throw damaged(file, 'it is missing', error);
      if (code === 'ELOOP') throw damaged(file, 'it is a link', error);
      throw systemError(error, file);
    }
    try {
      const found = await handle.stat({ bigint: true });
      const sizeBytes = Number(found.size);
      if (!found.isFile()) throw damaged(file, 'it is no regular file');
      if ('sizeBytes' in size && sizeBytes !== size.sizeBytes) {
        throw damaged(file, `it has ${sizeBytes} bytes instead of ${size.sizeBytes}`);
      }
      if ('maxBytes' in size && sizeBytes > size.maxBytes) throw damaged(file, 'it is larger than any may be');
      return { handle, sizeBytes, identity: [found.dev, found.ino, found.size, found.mtimeNs].join(':') };
    } catch (error) {
      await handle.close();
      throw systemError(error, file);
    }
  }

  /** All of a file. @throws as openFile. */
  async read(name: string, size: { readonly sizeBytes: number } | { readonly maxBytes: number }): Promise<Uint8Array> {
    const { handle, sizeBytes } = await this.openFile(name, size);
    try {
      return await readExactly(handle, 0, sizeBytes, this.file(name));
    } finally {
      await handle.close();
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** @throws VmmError ERR_SNAPSHOT for a file that ends before; SystemError. */
export async function readExactly(
  handle: FileHandle,
  at: number,
  lengthBytes: number,
  file: string,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  let done = 0;
  while (done < lengthBytes) {
    const { bytesRead } = await naming(file, () => handle.read(bytes, done, lengthBytes - done, at + done));
    if (bytesRead === 0) throw damaged(file, 'it ends too early');
    done += bytesRead;
  }
  return bytes;
}

/** A new file with these bytes, synced. @throws SystemError naming it. */
export async function writeNew(file: string, bytes: Uint8Array): Promise<void> {
  await naming(file, async () => {
    const handle = await open(file, 'wx', 0o600);
    try {
      await writeAt(handle, bytes, 0);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** @throws SystemError naming it */
export async function syncFolder(folder: string): Promise<void> {
  await naming(folder, async () => {
    const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** A new folder for this user alone. @throws SystemError naming it */
export async function makeFolder(folder: string): Promise<void> {
  await naming(folder, () => mkdir(folder, { mode: 0o700 }));
}

/** @throws SystemError naming it */
export async function removeFolder(folder: string): Promise<void> {
  await naming(folder, () => rm(folder, { recursive: true, force: true }));
}

/**
 * Where the files of a chain come from: an image and the backing files that it names, each opened once and locked, and
 * told apart whatever their names are. The host's file system; fuzzing has its own.
 */
import { readlink, realpath } from 'node:fs/promises';
import { VmmError } from '../../../base/errors.js';
import type { IoEngine } from '../../../memory/io-engine.js';
import { openImageFile } from '../image-file.js';
import type { LockFile } from '../image-lock.js';
import { ImageFile } from './image-file.js';

export interface OpenedFile {
  /** As the kernel resolves it. */
  readonly realPath: string;
  /** The same for two names of one file. */
  readonly identity: string;
  /** The file with the size that it has now. */
  view(): Promise<ImageFile>;
  /** Gives lock and descriptor back. Idempotent. */
  close(): Promise<void>;
}

export interface ChainFiles {
  /** @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED; AbortError */
  open(path: string, readOnly: boolean): Promise<OpenedFile>;
  /** As the kernel resolves a name; undefined where nothing is. */
  realPath(path: string): Promise<string | undefined>;
}

export interface HostFilesOptions {
  readonly engine: IoEngine;
  readonly lockFile?: LockFile | undefined;
  readonly owner?: object | undefined;
  readonly signal?: AbortSignal | undefined;
}

export function hostFiles(options: HostFilesOptions): ChainFiles {
  const { engine, lockFile, owner, signal } = options;
  return {
    async open(path, readOnly) {
      const opened = await openImageFile(path, { readOnly, owner, lockFile, signal });
      try {
        if (opened.isBlockDevice) {
          throw new VmmError('ERR_DISK_IMAGE', `${path} is a block device`, { cure: 'name a qcow2 image in a file' });
        }
        const { dev, ino } = await opened.stat();
        return {
          realPath: await readlink(`/proc/self/fd/${opened.fd}`),
          identity: `${dev}:${ino}`,
          view: async () => new ImageFile(path, opened.fd, engine, Number((await opened.stat()).size)),
          close: () => opened.close(),
        };
      } catch (error) {
        await opened.close();
        throw error;
      }
    },
    realPath: (path) => realpath(path).catch(() => undefined),
  };
}

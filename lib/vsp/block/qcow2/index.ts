/**
 * `qcow2Disk(path)`: a qcow2 image of version 3, with the chain of its backing files; version 2 for reading only.
 *
 * Files of this folder, lowest first: header, refcount-block; image-file, page-cache, metadata-map; refcounts, mapping;
 * commit (the order of all metadata writes); reader, writer, zeroes; load; backend; chain-files; open, create.
 */
import { checkOptionNames } from '../../../base/options.js';
import type { BlockBackend } from '../contract.js';
import type { BlockOpenContext, BlockSource } from '../source.js';
import type { LockFile } from '../image-lock.js';
import { checkSectors } from './backend.js';
import { hostFiles } from './chain-files.js';
import { openQcow2 } from './open.js';
import { overlayOn } from './overlay-source.js';

export { createQcow2Overlay, type Qcow2OverlayOptions } from './create.js';

export interface Qcow2DiskOptions {
  /** Folders that backing files may lie in, besides that of the image which names them. */
  readonly backingFolders?: readonly string[];
  /** What the backing file is where the image does not say; it is never guessed. */
  readonly backingFormat?: 'raw' | 'qcow2';
  readonly readOnly?: boolean;
  /** Takes the advisory lock of each file of the chain; a parameter for tests. */
  readonly lock?: LockFile;
  /** Bound of each of the two caches of metadata; default 4 MiB of L2 tables and 1 MiB of refcounts. */
  readonly cacheBytes?: number;
}

/**
 * A disk in a qcow2 image.
 *
 * @throws TypeError for something that is not a path, or an option that there is not.
 * @example const disk = qcow2Disk('work.qcow2', { backingFolders: ['/var/lib/images'] })
 */
export function qcow2Disk(path: string, options: Qcow2DiskOptions = {}): BlockSource {
  if (typeof path !== 'string' || path === '') throw new TypeError('qcow2Disk: a path is wanted');
  checkOptionNames('qcow2Disk', options, ['backingFolders', 'backingFormat', 'readOnly', 'lock', 'cacheBytes']);
  return {
    class: 'block',
    describe: () => ({ kind: 'qcow2', path }),
    open: (context) => openDisk(path, options, context),
    overlay: (file) => overlayOn({ path, format: 'qcow2' }, file, options),
  };
}

async function openDisk(path: string, options: Qcow2DiskOptions, context: BlockOpenContext): Promise<BlockBackend> {
  const { engine, logger, owner, signal } = context;
  const backend = await openQcow2(path, {
    files: hostFiles({ engine, owner, signal, lockFile: options.lock }),
    logger,
    readOnly: context.readOnly || options.readOnly === true,
    backingFolders: options.backingFolders ?? [],
    backingFormat: options.backingFormat,
    cacheBytes: options.cacheBytes,
  });
  try {
    checkSectors(path, backend.sizeBytes);
    return backend;
  } catch (error) {
    await backend.close();
    throw error;
  }
}

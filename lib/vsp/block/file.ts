/**
 * `fileDisk(path)`: a raw image in a regular file, or a block device of the host. HAL: what it can't do is emulated by
 * the provider.
 */
import { VmmError } from '../../base/errors.js';
import { checkOptionNames } from '../../base/options.js';
import { blockDeviceFacts } from './block-device.js';
import { SECTOR_BYTES, type BlockBackend, type BlockGeometry } from './contract.js';
import { FileBackend } from './file-backend.js';
import { openImageFile, type ImageFile } from './image-file.js';
import type { LockFile } from './image-lock.js';
import { overlayOn } from './qcow2/overlay-source.js';
import type { BlockOpenContext, BlockSource } from './source.js';

export interface FileDiskOptions {
  /** Never written to, under a lock that other readers may share. Default: as the disk is. */
  readonly readOnly?: boolean;
  /** Takes the advisory lock; a parameter for tests. */
  readonly lockFile?: LockFile;
  /** Where sysfs is mounted; a parameter for tests. Default '/sys'. */
  readonly sysfs?: string;
}

/**
 * A disk on a raw image file or a block device. Its size is that of the file: a multiple of 512 bytes.
 *
 * @throws TypeError for something that is not a path, or an option that there is not.
 * @example const disk = fileDisk('/var/lib/images/root.img')
 */
export function fileDisk(path: string, options: FileDiskOptions = {}): BlockSource {
  if (typeof path !== 'string' || path === '') throw new TypeError('fileDisk: a path is wanted');
  checkOptionNames('fileDisk', options, ['readOnly', 'lockFile', 'sysfs']);
  return {
    class: 'block',
    describe: () => ({ kind: 'file', path }),
    open: (context) => openFileDisk(path, options, context),
    overlay: (file) => overlayOn({ path, format: 'raw' }, file, options.lockFile ? { lock: options.lockFile } : {}),
  };
}

async function openFileDisk(path: string, options: FileDiskOptions, context: BlockOpenContext): Promise<BlockBackend> {
  const { owner, signal, engine } = context;
  const readOnly = context.readOnly || options.readOnly === true;
  const file = await openImageFile(path, { readOnly, owner, signal, lockFile: options.lockFile });
  try {
    const { geometry, serial } = await measure(file, options.sysfs);
    return new FileBackend(file, engine, {
      geometry,
      serial,
      measure: async () => (await measure(file, options.sysfs)).geometry,
    });
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function measure(
  file: ImageFile,
  sysfs?: string,
): Promise<{ geometry: BlockGeometry; serial?: string | undefined }> {
  const stats = await file.stat();
  if (file.isBlockDevice) {
    const facts = await blockDeviceFacts(stats.rdev, sysfs);
    checkSize(file.path, facts.sizeBytes, facts.logicalBlockBytes);
    const { sizeBytes, logicalBlockBytes: blockBytes, physicalBlockBytes, optimalIoBytes, serial } = facts;
    return { geometry: { sizeBytes, blockBytes, physicalBlockBytes, optimalIoBytes }, serial };
  }
  const sizeBytes = Number(stats.size);
  checkSize(file.path, sizeBytes, SECTOR_BYTES);
  // st_blksize: what the file system changes at once.
  const physicalBlockBytes = Math.max(SECTOR_BYTES, Number(stats.blksize));
  return { geometry: { sizeBytes, blockBytes: SECTOR_BYTES, physicalBlockBytes, optimalIoBytes: 0 } };
}

function checkSize(path: string, sizeBytes: number, unitBytes: number): void {
  if (sizeBytes === 0) {
    throw new VmmError('ERR_DISK_IMAGE', `${path} is empty`, { cure: `truncate -s 10G '${path}' gives it 10 GiB` });
  }
  if (sizeBytes % unitBytes !== 0) {
    throw new VmmError('ERR_DISK_IMAGE', `${path} has ${sizeBytes} bytes, not a multiple of ${unitBytes}`, {
      cure: `truncate -s %${unitBytes} '${path}' adds what is missing, as zeroes`,
    });
  }
}

/**
 * What sysfs says about a block device: its size, block sizes and serial number. stat and lseek know only some of it,
 * and ioctls are not for JavaScript. Documentation/ABI/stable/sysfs-block in the kernel's sources.
 */
import { readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { VmmError } from '../../base/errors.js';

export interface BlockDeviceFacts {
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly optimalIoBytes: number;
  readonly serial: string | undefined;
}

/** sysfs counts in these, whatever the device's blocks are. */
const SYSFS_SECTOR_BYTES = 512;

/**
 * @param rdev the device number, as stat gives it
 * @param sysfs where it is mounted
 * @throws VmmError ERR_DISK_IMAGE when sysfs does not have the device.
 */
export async function blockDeviceFacts(rdev: bigint, sysfs = '/sys'): Promise<BlockDeviceFacts> {
  const { major, minor } = deviceNumber(rdev);
  let folder: string;
  try {
    folder = await realpath(path.join(sysfs, 'dev/block', `${major}:${minor}`));
  } catch (cause) {
    throw new VmmError('ERR_DISK_IMAGE', `block device ${major}:${minor} is not in ${sysfs}`, { cause });
  }
  const size = await numberIn(path.join(folder, 'size'));
  if (size === undefined) throw new VmmError('ERR_DISK_IMAGE', `block device ${major}:${minor} has no size`);
  // A partition's limits are those of its disk, the folder above.
  const isPartition = (await textIn(path.join(folder, 'partition'))) !== undefined;
  const disk = isPartition ? path.dirname(folder) : folder;
  const limit = (name: string): Promise<number | undefined> => numberIn(path.join(disk, 'queue', name));
  const logicalBlockBytes = (await limit('logical_block_size')) ?? SYSFS_SECTOR_BYTES;
  return {
    sizeBytes: size * SYSFS_SECTOR_BYTES,
    logicalBlockBytes,
    physicalBlockBytes: (await limit('physical_block_size')) ?? logicalBlockBytes,
    optimalIoBytes: (await limit('optimal_io_size')) ?? 0,
    serial: isPartition
      ? undefined
      : ((await textIn(path.join(disk, 'device/serial'))) ?? (await textIn(path.join(disk, 'serial')))),
  };
}

/** Linux's layout of a 64-bit dev_t: major in bits 8 to 19 and 44 up, minor in bits 0 to 7 and 20 to 43 (makedev(3)). */
export function deviceNumber(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xffff_f000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffff_ff00n)),
  };
}

async function textIn(file: string): Promise<string | undefined> {
  try {
    const text = (await readFile(file, 'latin1')).trim();
    return text === '' ? undefined : text;
  } catch {
    return undefined;
  }
}

async function numberIn(file: string): Promise<number | undefined> {
  const value = Number((await textIn(file)) ?? Number.NaN);
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

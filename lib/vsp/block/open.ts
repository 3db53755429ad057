/**
 * Opening a source for a device, and the checks that every backend passes before it serves one: its geometry makes
 * sense, and it can write when the device does.
 */
import { VmmError } from '../../base/errors.js';
import { MiB } from '../../base/units.js';
import { SECTOR_BYTES, type BlockBackend, type BlockGeometry } from './contract.js';
import type { BlockOpenContext, BlockSource } from './source.js';

const MAX_BLOCK_BYTES = MiB;

/**
 * @param writes the device changes data on the backend itself
 * @throws VmmError as BlockSource.open does; ERR_DISK_IMAGE for what can't serve. It is closed then.
 */
export async function openBackend(
  id: string,
  source: BlockSource,
  context: BlockOpenContext,
  writes: boolean,
): Promise<BlockBackend> {
  const backend = await source.open(context);
  try {
    const reason = whyUnfit(backend, writes);
    if (reason !== undefined) {
      throw new VmmError(
        'ERR_DISK_IMAGE',
        `disk ${id}: ${reason}`,
        backend.write ? {} : { cure: 'readOnly: true for the disk, or copyOnWrite to keep its changes in memory' },
      );
    }
    return backend;
  } catch (error) {
    await backend.close();
    throw error;
  }
}

function whyUnfit(backend: BlockBackend, writes: boolean): string | undefined {
  const reason = whyNoGeometry(backend.geometry);
  if (reason !== undefined) return reason;
  if (writes && !backend.write) return `its backend (${backend.describe().kind}) can only be read`;
  return undefined;
}

/** What is wrong with a geometry, if anything. */
export function whyNoGeometry({ sizeBytes, blockBytes }: BlockGeometry): string | undefined {
  if (blockBytes < SECTOR_BYTES || blockBytes > MAX_BLOCK_BYTES || !Number.isInteger(Math.log2(blockBytes))) {
    return `blocks of ${blockBytes} bytes; a power of two from ${SECTOR_BYTES} to ${MAX_BLOCK_BYTES} is wanted`;
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockBytes !== 0) {
    return `a size of ${sizeBytes} bytes, which is not a positive multiple of its blocks of ${blockBytes} bytes`;
  }
  return undefined;
}

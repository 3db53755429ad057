/**
 * Block sizes as hints for a guest. A medium that knows none gets those of a page: file systems then align to what the
 * host's page cache changes at once.
 */
import { PAGE_SIZE } from '../../../base/units.js';
import { SECTOR_BYTES, type BlockGeometry } from '../contract.js';
import type { ServedBy } from '../../contract.js';

export interface Topology {
  readonly physicalBlockBytes: number;
  readonly optimalIoBytes: number;
  readonly by: ServedBy;
}

export function topologyOf(geometry: BlockGeometry): Topology {
  const { blockBytes, physicalBlockBytes, optimalIoBytes } = geometry;
  const knows = physicalBlockBytes > SECTOR_BYTES || optimalIoBytes > 0;
  return {
    physicalBlockBytes: Math.max(knows ? physicalBlockBytes : PAGE_SIZE, blockBytes),
    optimalIoBytes,
    by: knows ? 'native' : 'emulated',
  };
}

/**
 * What a virtio block device (virtio 1.2, 5.2) offers, as a function of its service: features and configuration space.
 * It executes nothing.
 *
 * Not offered: SIZE_MAX, since a piece may be as long as the driver likes; MQ, since all queues of a disk would be
 * served by the one JavaScript thread; GEOMETRY, SECURE_ERASE, LIFETIME and ZONED, which no service has.
 */
import { VirtioBlkConfig, VirtioBlkFeature } from '../abi/virtio.js';
import { SECTOR_BYTES, type BlockGeometry, type BlockService } from '../vsp/block/contract.js';
import { ConfigBytes } from './config-bytes.js';

/** The most ranges in a discard or write-zeroes request. */
export const MAX_RANGES = 64;
/** The most sectors in one of them: 2 GiB. */
export const MAX_RANGE_SECTORS = 2 ** 22;

export function blockFeatures(service: BlockService): bigint {
  const { SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES } = VirtioBlkFeature;
  const always = SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | CONFIG_WCE;
  return always | (service.readOnly ? RO : DISCARD | WRITE_ZEROES);
}

export class BlockConfig extends ConfigBytes {
  constructor(geometry: BlockGeometry, queueSize: number) {
    // The driver may write one field, and of it 0 and 1 (5.2.6.1).
    super(VirtioBlkConfig.SIZE, (offset, value) => {
      if (offset === VirtioBlkConfig.WRITEBACK) this.writeback = value !== 0;
    });
    // Header and status take a descriptor each; no chain is longer than the queue.
    this.set32(VirtioBlkConfig.SEG_MAX, Math.max(queueSize - 2, 1));
    this.set32(VirtioBlkConfig.MAX_DISCARD_SECTORS, MAX_RANGE_SECTORS);
    this.set32(VirtioBlkConfig.MAX_DISCARD_SEG, MAX_RANGES);
    this.set32(VirtioBlkConfig.MAX_WRITE_ZEROES_SECTORS, MAX_RANGE_SECTORS);
    this.set32(VirtioBlkConfig.MAX_WRITE_ZEROES_SEG, MAX_RANGES);
    this.set8(VirtioBlkConfig.WRITE_ZEROES_MAY_UNMAP, 1);
    this.writeback = true;
    this.setGeometry(geometry);
  }

  setGeometry(geometry: BlockGeometry): void {
    const { sizeBytes, blockBytes, physicalBlockBytes, optimalIoBytes } = geometry;
    const physicalBlocks = Math.max(1, Math.floor(physicalBlockBytes / blockBytes));
    this.set64(VirtioBlkConfig.CAPACITY, Math.floor(sizeBytes / SECTOR_BYTES));
    this.set32(VirtioBlkConfig.BLK_SIZE, blockBytes);
    this.set8(VirtioBlkConfig.PHYSICAL_BLOCK_EXP, Math.floor(Math.log2(physicalBlocks)));
    this.set16(VirtioBlkConfig.MIN_IO_SIZE, Math.min(physicalBlocks, 0xffff));
    this.set32(VirtioBlkConfig.OPT_IO_SIZE, Math.floor(optimalIoBytes / blockBytes));
    this.set32(VirtioBlkConfig.DISCARD_SECTOR_ALIGNMENT, Math.max(1, Math.floor(physicalBlockBytes / SECTOR_BYTES)));
  }

  /** False: a write is durable before it is done. */
  get writeback(): boolean {
    return this.get8(VirtioBlkConfig.WRITEBACK) !== 0;
  }

  set writeback(on: boolean) {
    this.set8(VirtioBlkConfig.WRITEBACK, on ? 1 : 0);
  }
}

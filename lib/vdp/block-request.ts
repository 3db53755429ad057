/**
 * Parses a descriptor chain into a request of the block device (virtio 1.2, 5.2.6). The header and the ranges are copied
 * once; how the driver cut the bytes into descriptors plays no part (2.7.4.1). It executes nothing.
 *
 *   readable: le32 type, le32 reserved, le64 sector | data of OUT, ranges of DISCARD and WRITE_ZEROES
 *   writable: data of IN, id of GET_ID              | status byte
 *
 * | malformed                                                           | answer                                |
 * |---------------------------------------------------------------------|---------------------------------------|
 * | nothing writable, so no place for the status                        | the device needs a reset              |
 * | header shorter than 16 bytes, data in the wrong direction, of no    | IOERR                                 |
 * | sector, of no whole sectors; ranges cut, too many or too long       |                                       |
 * | unknown type, unknown flag of a range, unmap of a discard           | UNSUPP (5.2.6.2)                      |
 */
import {
  VIRTIO_BLK_HEADER_BYTES,
  VIRTIO_BLK_RANGE_BYTES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
  VirtioBlkFeature,
  VirtioBlkStatus,
  VirtioBlkType,
} from '../abi/virtio.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { GuestVector } from '../memory/io-vector.js';
import { SECTOR_BYTES, type BlockDone, type BlockError } from '../vsp/block/contract.js';
import { MAX_RANGE_SECTORS, MAX_RANGES } from './block-config.js';
import type { DescriptorChain } from './virtqueue.js';

export interface BlockRange {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly mayUnmap: boolean;
}

/** What changes the disk. */
export type BlockChange =
  | { readonly kind: 'write'; readonly offset: number; readonly data: GuestVector }
  | { readonly kind: 'discard' | 'write-zeroes'; readonly ranges: readonly BlockRange[] };

export type BlockWork =
  | { readonly kind: 'read'; readonly offset: number; readonly data: GuestVector }
  | { readonly kind: 'identify'; readonly data: GuestVector }
  | { readonly kind: 'flush' }
  | { readonly kind: 'refused'; readonly status: number }
  | BlockChange;

/** A request on its way; used again and again, each with its completion callback made once. */
export class BlockRequest {
  head = 0;
  memory: DeviceMemory;
  /** Where the status byte is written. */
  statusGpa = 0;
  /** All writable bytes, with the status. */
  writableBytes = 0;
  work: BlockWork = REFUSED;
  /** For the service, at its end. */
  readonly done: BlockDone;

  constructor(memory: DeviceMemory, done: (request: BlockRequest, error: BlockError | undefined) => void) {
    this.memory = memory;
    this.done = (error) => done(this, error);
  }
}

const FLUSH: BlockWork = { kind: 'flush' };
const REFUSED: BlockWork = { kind: 'refused', status: VirtioBlkStatus.IOERR };
const UNSUPPORTED: BlockWork = { kind: 'refused', status: VirtioBlkStatus.UNSUPP };
/** Offsets beyond are no exact numbers, and beyond every disk. */
const MAX_SECTOR = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR_BYTES);

export class BlockRequestParser {
  readonly #features: bigint;
  readonly #header = new Uint8Array(VIRTIO_BLK_HEADER_BYTES);
  readonly #words = new Uint32Array(this.#header.buffer);

  /** @param features those that were negotiated. */
  constructor(features: bigint) {
    this.#features = features;
  }

  /** Fills `request` in; false when there is no place for an answer. */
  parse(chain: DescriptorChain, request: BlockRequest): boolean {
    const { head, writable } = chain;
    const last = writable.gpas.length - 1;
    if (last < 0) return false;
    request.head = head;
    request.memory = writable.memory;
    request.statusGpa = writable.gpas[last]! + writable.lengths[last]! - 1;
    request.writableBytes = writable.lengthBytes;
    request.work = this.#work(chain);
    return true;
  }

  #work(chain: DescriptorChain): BlockWork {
    const { readable, writable } = chain;
    if (readable.lengthBytes < VIRTIO_BLK_HEADER_BYTES) return REFUSED;
    if (readable.lengths[0]! >= VIRTIO_BLK_HEADER_BYTES) readable.memory.readInto(readable.gpas[0]!, this.#header);
    else readable.copyTo(this.#header);
    const sector = this.#words[3]! * 2 ** 32 + this.#words[2]!;
    switch (this.#words[0]) {
      case VirtioBlkType.IN:
        if (readable.lengthBytes !== VIRTIO_BLK_HEADER_BYTES) return REFUSED;
        return transfer('read', sector, withoutStatus(writable));
      case VirtioBlkType.OUT:
        if (writable.lengthBytes !== 1) return REFUSED;
        return transfer('write', sector, withoutHeader(readable));
      case VirtioBlkType.FLUSH:
        return FLUSH;
      case VirtioBlkType.GET_ID:
        if (writable.lengthBytes === 1) return REFUSED;
        return { kind: 'identify', data: withoutStatus(writable) };
      case VirtioBlkType.DISCARD:
        if ((this.#features & VirtioBlkFeature.DISCARD) === 0n) return UNSUPPORTED;
        return changes('discard', withoutHeader(readable));
      case VirtioBlkType.WRITE_ZEROES:
        if ((this.#features & VirtioBlkFeature.WRITE_ZEROES) === 0n) return UNSUPPORTED;
        return changes('write-zeroes', withoutHeader(readable));
      default:
        return UNSUPPORTED;
    }
  }
}

function transfer(kind: 'read' | 'write', sector: number, data: GuestVector): BlockWork {
  if (sector > MAX_SECTOR || data.lengthBytes === 0 || data.lengthBytes % SECTOR_BYTES !== 0) return REFUSED;
  return { kind, offset: sector * SECTOR_BYTES, data };
}

function changes(kind: 'discard' | 'write-zeroes', data: GuestVector): BlockWork {
  const count = data.lengthBytes / VIRTIO_BLK_RANGE_BYTES;
  if (!Number.isInteger(count) || count === 0 || count > MAX_RANGES) return REFUSED;
  const bytes = new Uint8Array(data.lengthBytes);
  data.copyTo(bytes);
  const words = new Uint32Array(bytes.buffer);
  const ranges: BlockRange[] = [];
  let refused = false;
  for (let at = 0; at < words.length; at += 4) {
    const sector = words[at + 1]! * 2 ** 32 + words[at]!;
    const sectors = words[at + 2]!;
    const flags = words[at + 3]!;
    // 5.2.6.2: a flag that is not known, and unmap of a discard, before all else.
    if ((flags & ~(kind === 'discard' ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) !== 0) return UNSUPPORTED;
    if (sector > MAX_SECTOR || sectors === 0 || sectors > MAX_RANGE_SECTORS) refused = true;
    ranges.push({ offset: sector * SECTOR_BYTES, lengthBytes: sectors * SECTOR_BYTES, mayUnmap: flags !== 0 });
  }
  return refused ? REFUSED : { kind, ranges };
}

/** Without the last byte, which most drivers give a descriptor of its own. */
function withoutStatus(writable: GuestVector): GuestVector {
  if (writable.gpas.length === 2 && writable.lengths[1] === 1) {
    return new GuestVector(writable.memory, [writable.gpas[0]!], [writable.lengths[0]!]);
  }
  const gpas = writable.gpas.slice();
  const lengths = writable.lengths.slice();
  const last = lengths.length - 1;
  if (lengths[last] === 1) {
    gpas.pop();
    lengths.pop();
  } else {
    lengths[last] = lengths[last]! - 1;
  }
  return new GuestVector(writable.memory, gpas, lengths);
}

function withoutHeader(readable: GuestVector): GuestVector {
  if (readable.lengths[0] === VIRTIO_BLK_HEADER_BYTES) {
    return new GuestVector(readable.memory, readable.gpas.slice(1), readable.lengths.slice(1));
  }
  return readable.slice(VIRTIO_BLK_HEADER_BYTES, readable.lengthBytes - VIRTIO_BLK_HEADER_BYTES);
}

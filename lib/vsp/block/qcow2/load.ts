/**
 * From an open file to an image in memory: header, first-level tables, the map of what is metadata. Done when an image
 * is opened, and again when it takes over from another backend, which may have changed the file.
 */
import type { Logger } from '../../../base/logger.js';
import { QCOW2_ENTRY_BYTES, Qcow2EntryHigh as High, Qcow2EntryLow as Low, Qcow2Header } from '../../../abi/qcow2.js';
import { HostVector } from '../../../memory/io-vector.js';
import { imageError } from './failure.js';
import { HEADER_READ_BYTES, parseHeader, type Header } from './header.js';
import type { ImageFile } from './image-file.js';
import { Mapping } from './mapping.js';
import { MetadataMap } from './metadata-map.js';
import { Generations, Mutex } from './mutex.js';
import { Refcounts } from './refcounts.js';

const L2_CACHE_BYTES = 4 * 1024 * 1024;
const REFCOUNT_CACHE_BYTES = 1024 * 1024;

export interface LoadedImage {
  readonly file: ImageFile;
  readonly header: Header;
  readonly mapping: Mapping;
  readonly users: Generations;
  /** Of an image that may be written. */
  readonly writing:
    { readonly refcounts: Refcounts; readonly metadata: MetadataMap; readonly allocation: Mutex } | undefined;
}

export interface LoadOptions {
  readonly readOnly: boolean;
  readonly logger: Logger;
  readonly cacheBytes: number | undefined;
}

/**
 * In a rebind the device's other backend may write to the same file meanwhile. It grows the file before it names what is
 * new, so each check has a size that was taken after what it checks was read. The rest is read anew by activate().
 *
 * @param view the file with the size that it has at the call
 * @throws VmmError ERR_DISK_IMAGE; Failure when the file can't be read
 */
export async function loadImage(
  image: string,
  view: () => Promise<ImageFile>,
  options: LoadOptions,
): Promise<LoadedImage> {
  const { readOnly, logger, cacheBytes } = options;
  const start = await view();
  const bytes = new Uint8Array(Math.min(HEADER_READ_BYTES, start.endBytes));
  await start.read(0, new HostVector(bytes));
  const grown = await view();
  const header = parseHeader(bytes, image, grown.endBytes);
  checkState(image, header, readOnly, logger);
  const metadata = new MetadataMap(header.clusterBytes);
  metadata.addRange(0, header.clusterBytes);
  metadata.addRange(header.l1Offset, header.l1Entries * QCOW2_ENTRY_BYTES);
  metadata.addRange(header.refcountTableOffset, header.refcountTableClusters * header.clusterBytes);
  const l1 = await readPointers(grown, 'l1_table', header.l1Offset, header.l1Entries);
  const tables = [{ field: 'l1_table', pointers: l1 }];
  let blocks: number[] = [];
  if (!readOnly) {
    const entries = (header.refcountTableClusters * header.clusterBytes) / QCOW2_ENTRY_BYTES;
    blocks = await readPointers(grown, 'refcount_table', header.refcountTableOffset, entries);
    tables.push({ field: 'refcount_table', pointers: blocks });
  }
  const file = await view();
  metadata.fill(image, file.endBytes, tables);
  const mapping = new Mapping(file, header, l1, cacheBytes ?? L2_CACHE_BYTES);
  const loaded = { file, header, mapping, users: new Generations() };
  if (readOnly) return { ...loaded, writing: undefined };
  // The bitmaps and whatever else stands behind these bits do not follow our writes.
  if (header.hasAutoclear) {
    await file.write(Qcow2Header.AUTOCLEAR, new HostVector(new Uint8Array(8)));
    await file.sync();
  }
  while (blocks.at(-1) === 0) blocks.pop();
  const refcounts = new Refcounts(file, header, blocks, metadata, cacheBytes ?? REFCOUNT_CACHE_BYTES);
  return { ...loaded, writing: { refcounts, metadata, allocation: new Mutex() } };
}

function checkState(image: string, header: Header, readOnly: boolean, logger: Logger): void {
  if (header.sizeBytes === 0) throw imageError(image, 'size', 'the disk is empty');
  if (header.corrupt) logger.log('warn', `${image}: marked as corrupt by who wrote it last`);
  if (readOnly) return;
  if (header.version === 2) {
    throw imageError(image, 'version', '2 can only be read', 'qemu-img amend -o compat=1.1 makes it version 3');
  }
  if (header.corrupt) {
    throw imageError(image, 'incompatible_features', 'marked as corrupt: it can only be read', 'qemu-img check -r all');
  }
  if (header.dirty) {
    throw imageError(
      image,
      'incompatible_features',
      'marked as dirty: its refcounts may be wrong',
      'qemu-img check -r all',
    );
  }
}

/** Pointers of the L1 or the refcount table. Offsets beyond 2^53 come out inexact, and behind the end of any file. */
async function readPointers(file: ImageFile, field: string, offset: number, entries: number): Promise<number[]> {
  const bytes = new Uint8Array(entries * QCOW2_ENTRY_BYTES);
  if (entries > 0) await file.read(offset, new HostVector(bytes));
  const view = new DataView(bytes.buffer);
  const isL1 = field === 'l1_table';
  const pointers: number[] = [];
  for (let index = 0; index < entries; index++) {
    const high = view.getUint32(index * QCOW2_ENTRY_BYTES);
    const low = view.getUint32(index * QCOW2_ENTRY_BYTES + 4);
    if ((isL1 && (high & High.L1_RESERVED) !== 0) || (low & Low.L1_RESERVED) !== 0) {
      throw imageError(file.path, `${field}[${index}]`, 'reserved bits are set', 'qemu-img check -r all');
    }
    pointers.push((isL1 ? high & High.OFFSET : high) * 2 ** 32 + low);
  }
  return pointers;
}

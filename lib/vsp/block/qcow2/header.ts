/**
 * The header of a qcow2 image: read with every field checked against the format and the file, and written for new
 * images. It knows bytes only and opens nothing.
 *
 * | bytes    | field                                | bytes     | field                                 |
 * |----------|--------------------------------------|-----------|---------------------------------------|
 * | 0 - 3    | magic 'QFI' 0xfb                     | 60 - 63   | internal snapshots (0 here)           |
 * | 4 - 7    | version, 2 or 3                      | 64 - 71   | their table                           |
 * | 8 - 19   | backing name: offset, length         | 72 - 79   | incompatible features (version 3)     |
 * | 20 - 23  | log2 of the cluster size, 9 to 21    | 80 - 87   | compatible features                   |
 * | 24 - 31  | size of the disk                     | 88 - 95   | autoclear features                    |
 * | 32 - 35  | encryption (0 here)                  | 96 - 99   | log2 of the refcounts' bits, 0 to 6   |
 * | 36 - 47  | L1 table: entries, offset            | 100 - 103 | header length, then extensions        |
 * | 48 - 59  | refcount table: offset, clusters     |           | (type, length, data, padding to 8)    |
 */
import {
  QCOW2_ENTRY_BYTES,
  QCOW2_FEATURE_ENTRY_BYTES,
  QCOW2_FEATURE_INCOMPATIBLE,
  QCOW2_MAGIC,
  QCOW2_MAX_BACKING_NAME_BYTES,
  QCOW2_MAX_CLUSTER_BITS,
  QCOW2_MAX_L1_BYTES,
  QCOW2_MAX_REFCOUNT_ORDER,
  QCOW2_MAX_REFCOUNT_TABLE_BYTES,
  QCOW2_MIN_CLUSTER_BITS,
  Qcow2Extension,
  Qcow2Header as At,
  Qcow2Incompatible,
} from '../../../abi/qcow2.js';
import { imageError } from './failure.js';

export interface Header {
  readonly version: 2 | 3;
  readonly clusterBytes: number;
  readonly sizeBytes: number;
  readonly l1Entries: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly refcountBits: number;
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly hasAutoclear: boolean;
  readonly backing: { readonly name: string; readonly format: string | undefined } | undefined;
}

/** As much of the file as the header and its extensions may take: all of the first cluster. */
export const HEADER_READ_BYTES = 1 << QCOW2_MAX_CLUSTER_BITS;

export function isQcow2(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0) === QCOW2_MAGIC;
}

/**
 * @param bytes the start of the file, at least its first cluster or all of it
 * @throws VmmError ERR_DISK_IMAGE naming `path` and the field
 */
export function parseHeader(bytes: Uint8Array, path: string, fileBytes: number): Header {
  const fail = (field: string, problem: string, cure?: string): never => {
    throw imageError(path, field, problem, cure);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < At.V2_LENGTH) fail('header', `the file has ${bytes.length} bytes only`);
  if (view.getUint32(At.MAGIC) !== QCOW2_MAGIC) fail('magic', 'this is no qcow2 image', 'name it as a raw image');
  const version = view.getUint32(At.VERSION);
  if (version !== 2 && version !== 3) fail('version', `${version} is neither 2 nor 3`);

  const clusterBits = view.getUint32(At.CLUSTER_BITS);
  if (clusterBits < QCOW2_MIN_CLUSTER_BITS || clusterBits > QCOW2_MAX_CLUSTER_BITS) {
    fail('cluster_bits', `${clusterBits} is not from ${QCOW2_MIN_CLUSTER_BITS} to ${QCOW2_MAX_CLUSTER_BITS}`);
  }
  const clusterBytes = 1 << clusterBits;
  let headerBytes: number = At.V2_LENGTH;
  let refcountOrder = 4;
  let incompatible = 0n;
  let autoclear = 0n;
  if (version === 3) {
    if (bytes.length < At.V3_LENGTH) fail('header', `the file has ${bytes.length} bytes only`);
    headerBytes = view.getUint32(At.HEADER_LENGTH);
    incompatible = view.getBigUint64(At.INCOMPATIBLE);
    autoclear = view.getBigUint64(At.AUTOCLEAR);
    refcountOrder = view.getUint32(At.REFCOUNT_ORDER);
    if (headerBytes < At.V3_LENGTH || headerBytes % 8 !== 0 || headerBytes > Math.min(clusterBytes, bytes.length)) {
      fail('header_length', `${headerBytes} is no multiple of 8 from ${At.V3_LENGTH} to the cluster's size`);
    }
  }

  const areaBytes = Math.min(clusterBytes, bytes.length);
  const extensions = readExtensions(view, headerBytes, areaBytes, path);
  checkFeatures(incompatible, extensions.featureNames, fail);
  if (headerBytes > At.COMPRESSION_TYPE && bytes[At.COMPRESSION_TYPE] !== 0) {
    fail('compression_type', 'set without its feature bit');
  }
  const crypt = view.getUint32(At.CRYPT_METHOD);
  if (crypt !== 0)
    fail('crypt_method', `encryption (${crypt}) is not supported`, 'qemu-img convert makes a plain copy');
  const snapshots = view.getUint32(At.NB_SNAPSHOTS);
  if (snapshots !== 0) {
    fail('nb_snapshots', `${snapshots} internal snapshots are not supported`, 'qemu-img snapshot -d removes them');
  }
  if (refcountOrder > QCOW2_MAX_REFCOUNT_ORDER) fail('refcount_order', `${refcountOrder} is more than 6`);

  const sizeBytes = bigNumber(view, At.SIZE);
  if (!Number.isSafeInteger(sizeBytes)) fail('size', 'more than 2^53 bytes');
  const table = (field: string, offset: number, lengthBytes: number, maxBytes: number): void => {
    if (lengthBytes > maxBytes) fail(field, `the table has ${lengthBytes} bytes, more than ${maxBytes}`);
    if (offset % clusterBytes !== 0) fail(field, `offset ${offset} is not aligned to clusters`);
    if (lengthBytes > 0 && offset === 0) fail(field, 'the table lies on the header');
    if (offset + lengthBytes > fileBytes) fail(field, `the table ends behind the file, at ${offset + lengthBytes}`);
  };
  const l1Entries = view.getUint32(At.L1_SIZE);
  const l1Offset = bigNumber(view, At.L1_OFFSET);
  table('l1_table', l1Offset, l1Entries * QCOW2_ENTRY_BYTES, QCOW2_MAX_L1_BYTES);
  const needed = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / QCOW2_ENTRY_BYTES)));
  if (l1Entries < needed) fail('l1_size', `${l1Entries} entries do not reach ${sizeBytes} bytes, which need ${needed}`);
  const refcountTableOffset = bigNumber(view, At.REFCOUNT_OFFSET);
  const refcountTableClusters = view.getUint32(At.REFCOUNT_CLUSTERS);
  const refcountTableBytes = refcountTableClusters * clusterBytes;
  if (refcountTableClusters === 0) fail('refcount_table_clusters', 'there is no refcount table');
  table('refcount_table', refcountTableOffset, refcountTableBytes, QCOW2_MAX_REFCOUNT_TABLE_BYTES);
  const l1End = l1Offset + Math.ceil((l1Entries * QCOW2_ENTRY_BYTES) / clusterBytes) * clusterBytes;
  if (l1Offset < refcountTableOffset + refcountTableBytes && refcountTableOffset < l1End) {
    fail('l1_table', 'it overlaps the refcount table');
  }

  return {
    version: version === 2 ? 2 : 3,
    clusterBytes,
    sizeBytes,
    l1Entries,
    l1Offset,
    refcountTableOffset,
    refcountTableClusters,
    refcountBits: 1 << refcountOrder,
    dirty: (incompatible & (1n << BigInt(Qcow2Incompatible.DIRTY))) !== 0n,
    corrupt: (incompatible & (1n << BigInt(Qcow2Incompatible.CORRUPT))) !== 0n,
    hasAutoclear: autoclear !== 0n,
    backing: readBacking(view, areaBytes, headerBytes, extensions.format, path),
  };
}

/** Exact to 2^53; beyond that inexact, but still far behind the end of any file. */
function bigNumber(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

const text = (view: DataView, at: number, length: number): string =>
  Buffer.from(view.buffer, view.byteOffset + at, length).toString('utf8');

function readExtensions(
  view: DataView,
  from: number,
  end: number,
  path: string,
): { format: string | undefined; featureNames: Map<number, string> } {
  const featureNames = new Map<number, string>();
  let format: string | undefined;
  for (let at = from; at + 8 <= end;) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === Qcow2Extension.END) break;
    at += 8;
    if (length > end - at)
      throw imageError(path, 'header extension', `0x${type.toString(16)} leaves the first cluster`);
    if (type === Qcow2Extension.BACKING_FORMAT) format = text(view, at, length);
    if (type === Qcow2Extension.FEATURE_NAMES) {
      for (let entry = at; entry + QCOW2_FEATURE_ENTRY_BYTES <= at + length; entry += QCOW2_FEATURE_ENTRY_BYTES) {
        if (view.getUint8(entry) !== QCOW2_FEATURE_INCOMPATIBLE) continue;
        // Printable ASCII only: it goes into a message.
        const name = text(view, entry + 2, QCOW2_FEATURE_ENTRY_BYTES - 2).replace(/[^ -~]/g, '');
        featureNames.set(view.getUint8(entry + 1), name);
      }
    }
    at += Math.ceil(length / 8) * 8;
  }
  return { format, featureNames };
}

function checkFeatures(
  bits: bigint,
  names: Map<number, string>,
  fail: (field: string, problem: string, cure?: string) => never,
): void {
  const known: number[] = [Qcow2Incompatible.DIRTY, Qcow2Incompatible.CORRUPT];
  const refused = new Map<number, string>([
    [Qcow2Incompatible.EXTERNAL_DATA, 'an external data file'],
    [Qcow2Incompatible.COMPRESSION_TYPE, 'a compression type other than deflate'],
    [Qcow2Incompatible.EXTENDED_L2, 'extended L2 entries'],
  ]);
  for (let bit = 0; bit < 64; bit++) {
    if ((bits & (1n << BigInt(bit))) === 0n || known.includes(bit)) continue;
    const what = refused.get(bit) ?? `unknown bit ${bit}${names.has(bit) ? ` (${names.get(bit)!})` : ''}`;
    fail('incompatible_features', `${what}: not supported`, 'qemu-img convert -O qcow2 makes a plain copy');
  }
}

function readBacking(
  view: DataView,
  areaBytes: number,
  headerBytes: number,
  format: string | undefined,
  path: string,
): Header['backing'] {
  const offset = bigNumber(view, At.BACKING_OFFSET);
  if (offset === 0) return undefined;
  const length = view.getUint32(At.BACKING_SIZE);
  if (length === 0 || length > QCOW2_MAX_BACKING_NAME_BYTES) {
    throw imageError(path, 'backing_file_size', `${length} is not from 1 to ${QCOW2_MAX_BACKING_NAME_BYTES}`);
  }
  if (offset < headerBytes || offset + length > areaBytes) {
    throw imageError(path, 'backing_file_offset', `the name at ${offset} is not inside the first cluster`);
  }
  const name = text(view, offset, length);
  if (name.includes('\0') || name.includes('\ufffd')) {
    throw imageError(path, 'backing_file', 'the name is no UTF-8 text');
  }
  return { name, format };
}

/** The first cluster of a new image of version 3. @throws RangeError when the backing name does not fit. */
export function encodeHeader(header: Omit<Header, 'dirty' | 'corrupt' | 'hasAutoclear' | 'version'>): Uint8Array {
  const bytes = new Uint8Array(header.clusterBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(At.MAGIC, QCOW2_MAGIC);
  view.setUint32(At.VERSION, 3);
  view.setUint32(At.CLUSTER_BITS, Math.log2(header.clusterBytes));
  view.setBigUint64(At.SIZE, BigInt(header.sizeBytes));
  view.setUint32(At.L1_SIZE, header.l1Entries);
  view.setBigUint64(At.L1_OFFSET, BigInt(header.l1Offset));
  view.setBigUint64(At.REFCOUNT_OFFSET, BigInt(header.refcountTableOffset));
  view.setUint32(At.REFCOUNT_CLUSTERS, header.refcountTableClusters);
  view.setUint32(At.REFCOUNT_ORDER, Math.log2(header.refcountBits));
  view.setUint32(At.HEADER_LENGTH, At.V3_LENGTH);
  let at: number = At.V3_LENGTH;
  const put = (data: Uint8Array): void => {
    if (at + data.length > bytes.length) throw new RangeError('the backing name does not fit the first cluster');
    bytes.set(data, at);
    at += data.length;
  };
  const { backing } = header;
  if (backing?.format !== undefined) {
    const format = Buffer.from(backing.format);
    const extension = new Uint8Array(8 + Math.ceil(format.length / 8) * 8);
    new DataView(extension.buffer).setUint32(0, Qcow2Extension.BACKING_FORMAT);
    new DataView(extension.buffer).setUint32(4, format.length);
    extension.set(format, 8);
    put(extension);
  }
  put(new Uint8Array(8));
  if (backing) {
    const name = Buffer.from(backing.name);
    if (name.length > QCOW2_MAX_BACKING_NAME_BYTES) throw new RangeError('the backing name is longer than 1023 bytes');
    view.setBigUint64(At.BACKING_OFFSET, BigInt(at));
    view.setUint32(At.BACKING_SIZE, name.length);
    put(name);
  }
  return bytes;
}

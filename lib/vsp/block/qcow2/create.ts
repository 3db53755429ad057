/**
 * Making an image: header, refcount table, refcount blocks and an empty L1 table, in this order, each in clusters of its
 * own. The file is made exclusively, never over another, and is durable, with its name, when this returns.
 */
import { open, realpath, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { SystemError, VmmError } from '../../../base/errors.js';
import { checkInteger, checkOptionNames } from '../../../base/options.js';
import { systemError, writeAt } from '../../../base/system-call.js';
import { QCOW2_ENTRY_BYTES, QCOW2_MAX_L1_BYTES, Qcow2Header } from '../../../abi/qcow2.js';
import { encodeHeader, isQcow2 } from './header.js';
import { setRefcount } from './refcount-block.js';

export interface Qcow2ImageOptions {
  readonly sizeBytes: number;
  /** A power of two from 512 to 2 MiB; default 64 KiB. */
  readonly clusterBytes?: number | undefined;
  /** 1 to 64, a power of two; default 16. */
  readonly refcountBits?: number | undefined;
  /** As it is to stand in the image. */
  readonly backing?: { readonly name: string; readonly format: 'raw' | 'qcow2' } | undefined;
  readonly mode?: number | undefined;
}

export interface Qcow2OverlayOptions {
  /** The image that shows through; it must not be changed while there are overlays. */
  readonly backing: string;
  /** Default: by its first bytes. Name it when a guest could have written these. */
  readonly backingFormat?: 'raw' | 'qcow2';
  /** Default: that of the backing disk. */
  readonly sizeBytes?: number;
  readonly clusterBytes?: number;
  /** Permissions of the new file. Default: what the umask leaves. */
  readonly mode?: number;
}

/**
 * Makes an empty image over another, which is then only read: all that a guest changes stands in the new file.
 *
 * @throws VmmError ERR_DISK_IMAGE when `path` exists or `backing` is unusable; TypeError, RangeError for options.
 * @example await createQcow2Overlay('work.qcow2', { backing: 'debian.img' })
 */
export async function createQcow2Overlay(file: string, options: Qcow2OverlayOptions): Promise<void> {
  if (typeof file !== 'string' || file === '') throw new TypeError('createQcow2Overlay: a path is wanted');
  checkOptionNames('createQcow2Overlay', options, ['backing', 'backingFormat', 'sizeBytes', 'clusterBytes', 'mode']);
  const { backing, backingFormat, clusterBytes } = options;
  if (typeof backing !== 'string' || backing === '')
    throw new TypeError('createQcow2Overlay: backing: a path is wanted');
  if (backingFormat !== undefined && !['raw', 'qcow2'].includes(backingFormat)) {
    throw new TypeError(`createQcow2Overlay: backingFormat: '${backingFormat}' is neither raw nor qcow2`);
  }
  const found = await inspect(backing, backingFormat);
  // Beside each other they can be moved together.
  const folder = await realpath(path.dirname(file)).catch(() => path.dirname(path.resolve(file)));
  const relative = path.relative(folder, found.path);
  const name = relative.startsWith('..') ? found.path : relative;
  await createQcow2Image(file, {
    sizeBytes: options.sizeBytes ?? Math.ceil(found.sizeBytes / 512) * 512,
    clusterBytes,
    mode: options.mode,
    // A name with a colon before any slash would be taken for a protocol.
    backing: { name: /^[^/]*:/.test(name) ? `./${name}` : name, format: found.format },
  });
}

/** @throws VmmError ERR_DISK_IMAGE, TypeError, RangeError */
export async function createQcow2Image(file: string, options: Qcow2ImageOptions): Promise<void> {
  const sizeBytes = checkInteger('sizeBytes', options.sizeBytes, 512, Number.MAX_SAFE_INTEGER);
  if (sizeBytes % 512 !== 0) throw new RangeError(`sizeBytes: ${sizeBytes} is no multiple of 512`);
  const clusterBytes = powerOfTwo('clusterBytes', options.clusterBytes ?? 65536, 512, 2 * 1024 * 1024);
  const refcountBits = powerOfTwo('refcountBits', options.refcountBits ?? 16, 1, 64);
  const l1Entries = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / QCOW2_ENTRY_BYTES)));
  const l1Bytes = l1Entries * QCOW2_ENTRY_BYTES;
  if (l1Bytes > QCOW2_MAX_L1_BYTES) {
    throw new RangeError(`sizeBytes: ${sizeBytes} needs clusters larger than ${clusterBytes} bytes`);
  }
  const l1Clusters = Math.ceil(l1Bytes / clusterBytes);
  const perBlock = (clusterBytes * 8) / refcountBits;
  let tableClusters = 1;
  let blocks = 1;
  const used = (): number => 1 + tableClusters + blocks + l1Clusters;
  while (blocks * perBlock < used() || (tableClusters * clusterBytes) / QCOW2_ENTRY_BYTES < blocks) {
    blocks = Math.max(blocks, Math.ceil(used() / perBlock));
    tableClusters = Math.ceil((blocks * QCOW2_ENTRY_BYTES) / clusterBytes);
  }
  const header = encodeHeader({
    clusterBytes,
    sizeBytes,
    l1Entries,
    l1Offset: (1 + tableClusters + blocks) * clusterBytes,
    refcountTableOffset: clusterBytes,
    refcountTableClusters: tableClusters,
    refcountBits,
    backing: options.backing,
  });
  const counts = new Uint8Array((tableClusters + blocks) * clusterBytes);
  const view = new DataView(counts.buffer);
  for (let block = 0; block < blocks; block++) {
    view.setBigUint64(block * QCOW2_ENTRY_BYTES, BigInt((1 + tableClusters + block) * clusterBytes));
  }
  const blockView = new DataView(counts.buffer, tableClusters * clusterBytes);
  for (let cluster = 0; cluster < used(); cluster++) setRefcount(blockView, refcountBits, cluster, 1);
  await writeNew(file, header, counts, used() * clusterBytes, options.mode);
}

async function writeNew(
  file: string,
  header: Uint8Array,
  counts: Uint8Array,
  sizeBytes: number,
  mode: number | undefined,
): Promise<void> {
  const handle = await open(file, 'wx', mode).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    const message = code === 'EEXIST' ? 'exists already' : `can't be made: ${reasonOf(error, file)}`;
    throw new VmmError('ERR_DISK_IMAGE', `${file} ${message}`, { cause: error });
  });
  try {
    await handle.truncate(sizeBytes);
    await writeAt(handle, counts, header.length);
    // The header last: a file without it is no image.
    await writeAt(handle, header, 0);
    await handle.sync();
    await handle.close();
    const folder = await open(path.dirname(path.resolve(file)), 'r');
    await folder.sync().finally(() => folder.close());
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(file, { force: true });
    throw new VmmError('ERR_DISK_IMAGE', `${file} can't be written: ${reasonOf(error, file)}`, { cause: error });
  }
}

function reasonOf(error: unknown, file: string): string {
  const known = systemError(error, file);
  return known instanceof SystemError ? `${known.syscall}: ${known.errno}` : String(error);
}

async function inspect(
  backing: string,
  wanted: 'raw' | 'qcow2' | undefined,
): Promise<{ path: string; format: 'raw' | 'qcow2'; sizeBytes: number }> {
  const fail = (problem: string): never => {
    throw new VmmError('ERR_DISK_IMAGE', `${backing} ${problem}`);
  };
  const real = await realpath(backing).catch(() => fail('does not exist'));
  if (!(await stat(real)).isFile()) fail('is no regular file');
  const handle = await open(real, 'r').catch(() => fail('may not be read'));
  try {
    const bytes = new Uint8Array(Qcow2Header.V2_LENGTH);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
    const format = wanted ?? (isQcow2(bytes) ? 'qcow2' : 'raw');
    if (format === 'raw') {
      const { size } = await handle.stat();
      return { path: real, format, sizeBytes: size > 0 ? size : fail('is empty') };
    }
    if (!isQcow2(bytes) || bytesRead < bytes.length) fail('is no qcow2 image');
    const sizeBytes = Number(new DataView(bytes.buffer).getBigUint64(Qcow2Header.SIZE));
    return { path: real, format, sizeBytes };
  } finally {
    await handle.close();
  }
}

function powerOfTwo(name: string, value: number, minimum: number, maximum: number): number {
  checkInteger(name, value, minimum, maximum);
  if (!Number.isInteger(Math.log2(value))) throw new RangeError(`${name}: ${value} is no power of two`);
  return value;
}

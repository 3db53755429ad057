/**
 * Opening an image and what stands behind it. Everything that one file says about another is untrusted: a backing file
 * must lie in the folder of the image that names it, or in one that the caller allows, as the kernel resolves the
 * path; a chain has no loops and an end.
 */
import { constants } from 'node:fs';
import { open, readlink, realpath, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { AbortError, VmmError } from '../../../base/errors.js';
import type { Logger } from '../../../base/logger.js';
import { QCOW2_ENTRY_BYTES, Qcow2EntryHigh as High, Qcow2EntryLow as Low, Qcow2Header } from '../../../abi/qcow2.js';
import type { IoEngine } from '../../../memory/io-engine.js';
import { HostVector } from '../../../memory/io-vector.js';
import { RawBacking, type Backing } from './backing.js';
import { Qcow2Backend, Qcow2Reader } from './backend.js';
import { imageError } from './failure.js';
import { HEADER_READ_BYTES, parseHeader, type Header } from './header.js';
import { ImageFile } from './image-file.js';
import { Mapping } from './mapping.js';
import { MetadataMap } from './metadata-map.js';
import { Generations, Mutex } from './mutex.js';
import { Refcounts } from './refcounts.js';

/** Files of one disk, the image itself included. */
export const MAX_CHAIN = 16;

const L2_CACHE_BYTES = 4 * 1024 * 1024;
const REFCOUNT_CACHE_BYTES = 1024 * 1024;

/** Takes an advisory lock without waiting; false: somebody else has it. */
export type LockFile = (fd: number, mode: 'shared' | 'exclusive') => boolean;

export interface OpenOptions {
  readonly engine: IoEngine;
  readonly logger: Logger;
  readonly readOnly: boolean;
  readonly backingFolders: readonly string[];
  /** For an image that does not say what its backing file is. */
  readonly backingFormat: 'raw' | 'qcow2' | undefined;
  readonly lock: LockFile | undefined;
  readonly cacheBytes: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/** @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED; AbortError */
export async function openQcow2(image: string, options: OpenOptions): Promise<Qcow2Reader> {
  return openImage(image, options, new Set());
}

async function openImage(image: string, options: OpenOptions, chain: Set<string>): Promise<Qcow2Reader> {
  const { readOnly, logger, cacheBytes } = options;
  const opened = await openFile(image, options, chain);
  const { handle, file } = opened;
  let backing: Backing | undefined;
  try {
    const bytes = new Uint8Array(Math.min(HEADER_READ_BYTES, file.endBytes));
    await file.read(0, new HostVector(bytes));
    const header = parseHeader(bytes, image, file.endBytes);
    checkState(image, header, readOnly, logger);
    const metadata = new MetadataMap(header.clusterBytes);
    metadata.addRange(0, header.clusterBytes);
    metadata.addRange(header.l1Offset, header.l1Entries * QCOW2_ENTRY_BYTES);
    metadata.addRange(header.refcountTableOffset, header.refcountTableClusters * header.clusterBytes);
    const l1 = await readPointers(file, 'l1_table', header.l1Offset, header.l1Entries);
    const tables = [{ field: 'l1_table', pointers: l1 }];
    let blocks: number[] = [];
    if (!readOnly) {
      const entries = (header.refcountTableClusters * header.clusterBytes) / QCOW2_ENTRY_BYTES;
      blocks = await readPointers(file, 'refcount_table', header.refcountTableOffset, entries);
      tables.push({ field: 'refcount_table', pointers: blocks });
    }
    metadata.fill(image, file.endBytes, tables);
    if (header.backing) backing = await openBacking(opened.realPath, header.backing, options, chain);

    const users = new Generations();
    const mapping = new Mapping(file, header, l1, cacheBytes ?? L2_CACHE_BYTES);
    const parts = { file, header, mapping, users, backing, closeFile: () => handle.close() };
    if (readOnly) return new Qcow2Reader(parts);
    // The bitmaps and whatever else stands behind these bits do not follow our writes.
    if (header.hasAutoclear) {
      await file.write(Qcow2Header.AUTOCLEAR, new HostVector(new Uint8Array(8)));
      await file.sync();
    }
    while (blocks.at(-1) === 0) blocks.pop();
    const refcounts = new Refcounts(file, header, blocks, metadata, cacheBytes ?? REFCOUNT_CACHE_BYTES);
    return new Qcow2Backend({ ...parts, refcounts, metadata, allocation: new Mutex() });
  } catch (error) {
    await handle.close();
    await backing?.close();
    if (error instanceof VmmError) throw error;
    throw new VmmError('ERR_DISK_IMAGE', `${image} can't be read: ${(error as Error).message}`, { cause: error });
  }
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

async function openFile(
  image: string,
  options: OpenOptions,
  chain: Set<string>,
): Promise<{ handle: FileHandle; file: ImageFile; realPath: string }> {
  const { readOnly, lock, signal, engine } = options;
  if (signal?.aborted) throw new AbortError(signal);
  let handle: FileHandle;
  try {
    // Before open, which would wait for a FIFO or do things to a device.
    if (!(await stat(image)).isFile()) throw new VmmError('ERR_DISK_IMAGE', `${image} is no regular file`);
    handle = await open(image, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  } catch (error) {
    if (error instanceof VmmError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    const cure = code === 'ENOENT' ? `qemu-img create -f qcow2 '${image}' 10G` : undefined;
    throw new VmmError('ERR_DISK_IMAGE', `${image} can't be opened: ${code ?? 'unknown error'}`, {
      cause: error,
      ...(cure !== undefined && { cure }),
    });
  }
  try {
    const stats = await handle.stat({ bigint: true });
    if (!stats.isFile()) throw new VmmError('ERR_DISK_IMAGE', `${image} is no regular file`);
    const identity = `${stats.dev}:${stats.ino}`;
    if (chain.has(identity)) throw imageError(image, 'backing_file', 'the chain of backing files is a loop');
    chain.add(identity);
    if (chain.size > MAX_CHAIN) throw imageError(image, 'backing_file', `the chain has more than ${MAX_CHAIN} files`);
    if (lock && !lock(handle.fd, readOnly ? 'shared' : 'exclusive')) {
      throw new VmmError('ERR_DISK_LOCKED', `${image}: another device or process uses it`, {
        cure: 'end what uses it, or make an overlay for each machine',
      });
    }
    const realPath = await readlink(`/proc/self/fd/${handle.fd}`);
    return { handle, file: new ImageFile(image, handle.fd, engine, Number(stats.size)), realPath };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openBacking(
  image: string,
  named: NonNullable<Header['backing']>,
  options: OpenOptions,
  chain: Set<string>,
): Promise<Backing> {
  const refuse = (problem: string, cure?: string): never => {
    throw imageError(image, 'backing_file', `'${named.name}' ${problem}`, cure);
  };
  const format = named.format ?? options.backingFormat;
  if (format === undefined) {
    refuse('has no format, and guessing it would let a raw disk name files', 'qemu-img rebase -u -F raw|qcow2');
  }
  if (format !== 'raw' && format !== 'qcow2') refuse(`has the format '${String(format)}', neither raw nor qcow2`);
  // A name of QEMU's such as json:... or nbd:...; a colon behind a slash is part of a path.
  if (/^[^/]*:/.test(named.name)) refuse('is no path of a file');
  const target = path.resolve(path.dirname(image), named.name);
  const found = await realpath(target).catch(() => refuse(`(${target}) does not exist`));
  const folders = [path.dirname(image)];
  for (const folder of options.backingFolders) folders.push(await realpath(folder).catch(() => path.resolve(folder)));
  const allowed = (file: string): boolean => folders.some((folder) => isInside(folder, file));
  const outside = `leaves the folder ${path.dirname(image)}`;
  if (!allowed(found)) refuse(outside, `allow ${path.dirname(found)} in backingFolders`);
  const below = { ...options, readOnly: true };
  if (format === 'qcow2') return openImage(found, below, chain);
  const { handle, file, realPath } = await openFile(found, below, chain);
  if (!allowed(realPath)) {
    await handle.close();
    refuse(outside);
  }
  return new RawBacking(file, () => handle.close());
}

function isInside(folder: string, file: string): boolean {
  const relative = path.relative(folder, file);
  return relative !== '' && relative !== '..' && !relative.startsWith('../') && !path.isAbsolute(relative);
}

/**
 * Opening an image and what stands behind it. Everything that one file says about another is untrusted: a backing file
 * must lie in the folder of the image that names it, or in one that the caller allows, as the kernel resolves the
 * path; a chain has no loops and an end.
 */
import path from 'node:path';
import { VmmError } from '../../../base/errors.js';
import type { Logger } from '../../../base/logger.js';
import { Qcow2Backend, Qcow2Reader } from './backend.js';
import { RawBacking, type Backing } from './backing.js';
import type { ChainFiles, OpenedFile } from './chain-files.js';
import { imageError } from './failure.js';
import type { Header } from './header.js';
import { loadImage } from './load.js';

/** Files of one disk, the image itself included. */
export const MAX_CHAIN = 16;

export interface OpenOptions {
  readonly files: ChainFiles;
  readonly logger: Logger;
  readonly readOnly: boolean;
  readonly backingFolders: readonly string[];
  /** For an image that does not say what its backing file is. */
  readonly backingFormat: 'raw' | 'qcow2' | undefined;
  readonly cacheBytes: number | undefined;
}

/** @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED; AbortError */
export async function openQcow2(image: string, options: OpenOptions): Promise<Qcow2Reader> {
  return openImage(image, options, new Set());
}

async function openImage(image: string, options: OpenOptions, chain: Set<string>): Promise<Qcow2Reader> {
  const { readOnly, logger, cacheBytes } = options;
  const opened = await openFile(image, options, chain);
  let backing: Backing | undefined;
  try {
    const load = () => loadImage(image, () => opened.view(), { readOnly, logger, cacheBytes });
    const loaded = await load();
    const named = loaded.header.backing;
    if (named) backing = await openBacking(opened.realPath, named, options, chain);
    const reload = async () => {
      const again = await load();
      const { backing: now } = again.header;
      if (now?.name === named?.name && now?.format === named?.format) return again;
      throw imageError(image, 'backing_file', 'another one is named since the image was opened');
    };
    const parts = { backing, reload, close: () => opened.close() };
    return loaded.writing ? new Qcow2Backend(loaded, parts) : new Qcow2Reader(loaded, parts);
  } catch (error) {
    await opened.close();
    await backing?.close();
    if (error instanceof VmmError) throw error;
    throw new VmmError('ERR_DISK_IMAGE', `${image} can't be read: ${(error as Error).message}`, { cause: error });
  }
}

async function openFile(image: string, options: OpenOptions, chain: Set<string>): Promise<OpenedFile> {
  const opened = await options.files.open(image, options.readOnly);
  try {
    if (chain.has(opened.identity)) throw imageError(image, 'backing_file', 'the chain of backing files is a loop');
    chain.add(opened.identity);
    if (chain.size > MAX_CHAIN) throw imageError(image, 'backing_file', `the chain has more than ${MAX_CHAIN} files`);
    return opened;
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function openBacking(
  image: string,
  named: NonNullable<Header['backing']>,
  options: OpenOptions,
  chain: Set<string>,
): Promise<Backing> {
  const { files } = options;
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
  const found = (await files.realPath(target)) ?? refuse(`(${target}) does not exist`);
  const folders = [path.dirname(image)];
  for (const folder of options.backingFolders) folders.push((await files.realPath(folder)) ?? path.resolve(folder));
  const allowed = (file: string): boolean => folders.some((folder) => isInside(folder, file));
  const outside = `leaves the folder ${path.dirname(image)}`;
  if (!allowed(found)) refuse(outside, `allow ${path.dirname(found)} in backingFolders`);
  const below = { ...options, readOnly: true };
  if (format === 'qcow2') return openImage(found, below, chain);
  const opened = await openFile(found, below, chain);
  try {
    if (!allowed(opened.realPath)) refuse(outside);
    return await RawBacking.open(opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

function isInside(folder: string, file: string): boolean {
  const relative = path.relative(folder, file);
  return relative !== '' && relative !== '..' && !relative.startsWith('../') && !path.isAbsolute(relative);
}

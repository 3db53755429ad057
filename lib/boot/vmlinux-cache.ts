/**
 * The vmlinux from inside a bzImage, as a file: unpacked once, then found again by the hash of the packed bytes.
 *
 *   CACHE/vmlinux-<sha256 of the payload>        the unpacked ELF file, put there by rename
 *   CACHE/by-file-<hash of the bzImage's stat>   a symbolic link to it, so that a known file need not be hashed again
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { imageError, memoryImage, openImage, type ImageFile } from './errors.js';
import { isElf } from './elf.js';
import { trimZeros } from './elf-trim.js';
import { payloadFormat, SIZE_TRAILER_BYTES, unpackedSize, unpackPayload } from './payload.js';

/** Where the unpacked kernel came from. */
export interface UnpackedKernel {
  readonly file: ImageFile;
  readonly from: 'cache' | 'unpacked';
  /** What kept it out of the cache, if something did. */
  readonly cacheFault: string | undefined;
}

/** A file whose change time is younger than this could change again without its time changing: it is hashed anew. */
const SETTLED_NS = 2_000_000_000n;

/**
 * The unpacked kernel of a bzImage.
 *
 * @param cacheDir where unpacked kernels are kept; undefined keeps nothing.
 * @returns undefined when this host cannot unpack its format.
 * @throws VmmError ERR_KERNEL_IMAGE when the payload is damaged.
 */
export async function unpackKernel(
  bzImage: ImageFile,
  payload: { readonly offset: number; readonly lengthBytes: number },
  cacheDir: string | undefined,
): Promise<UnpackedKernel | undefined> {
  if (payload.lengthBytes < 16) return undefined;
  const format = payloadFormat(bzImage.read(payload.offset, 8));
  if (format === 'unknown' || format === 'elf' || format === 'bzip2' || format === 'lzo') return undefined;
  const tail = bzImage.read(payload.offset + payload.lengthBytes - SIZE_TRAILER_BYTES, SIZE_TRAILER_BYTES);
  const wantedBytes = unpackedSize(tail);

  const link = cacheDir === undefined ? undefined : path.join(cacheDir, `by-file-${fileIdentity(bzImage)}`);
  const settled = BigInt(Date.now()) * 1_000_000n - bzImage.stat.ctimeNs > SETTLED_NS;
  const known = link === undefined || !settled ? undefined : readLink(link);
  if (cacheDir !== undefined && known !== undefined && /^vmlinux-[0-9a-f]{64}$/.test(known)) {
    const file = openCached(path.join(cacheDir, known), wantedBytes);
    if (file) return { file, from: 'cache', cacheFault: undefined };
  }

  const packed = bzImage.read(payload.offset, payload.lengthBytes);
  const name = `vmlinux-${createHash('sha256').update(packed).digest('hex')}`;
  if (cacheDir !== undefined && link !== undefined) {
    const file = openCached(path.join(cacheDir, name), wantedBytes);
    if (file) {
      if (settled) tryLink(name, link);
      return { file, from: 'cache', cacheFault: undefined };
    }
  }

  let unpacked: Uint8Array | undefined;
  try {
    unpacked = await unpackPayload(packed);
  } catch (cause) {
    const fault = cause instanceof Error ? cause.message : String(cause);
    throw imageError(bzImage.label, `its packed kernel is damaged: ${fault}`, 'fetch or copy it again', cause);
  }
  if (unpacked === undefined) return undefined;
  trimZeros(unpacked);
  const file = memoryImage(bzImage.label, unpacked);
  if (cacheDir === undefined || link === undefined) return { file, from: 'unpacked', cacheFault: undefined };
  try {
    writeAtomically(cacheDir, name, unpacked);
    if (settled) tryLink(name, link);
    return { file, from: 'unpacked', cacheFault: undefined };
  } catch (error) {
    return { file, from: 'unpacked', cacheFault: error instanceof Error ? error.message : String(error) };
  }
}

/** Everything that changes when the file does. */
function fileIdentity(file: ImageFile): string {
  const { dev, ino, mtimeNs, ctimeNs } = file.stat;
  return createHash('sha256').update([dev, ino, file.sizeBytes, mtimeNs, ctimeNs].join(':')).digest('hex').slice(0, 32);
}

function readLink(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined; // not there, or no link: the long way finds out
  }
}

/** The cached file, if it is there, has the size that the payload names, and begins an ELF file. */
function openCached(file: string, wantedBytes: number): ImageFile | undefined {
  let image: ImageFile;
  try {
    image = openImage('cached kernel', file);
  } catch {
    return undefined;
  }
  if (image.sizeBytes === wantedBytes && wantedBytes >= 4 && isElf(image.read(0, 4))) return image;
  image.close();
  return undefined;
}

/** Writes under a name of its own, flushes, and renames: a reader sees the whole file or none. */
function writeAtomically(directory: string, name: string, bytes: Uint8Array): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const temporary = path.join(directory, `.${name}.${process.pid}.${randomBytes(4).toString('hex')}`);
  try {
    const fd = openSync(temporary, 'wx', 0o600);
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path.join(directory, name));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** The link only saves time: when it cannot be made, nothing is lost. */
function tryLink(name: string, link: string): void {
  const temporary = `${link}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    symlinkSync(name, temporary);
    renameSync(temporary, link);
  } catch {
    rmSync(temporary, { force: true });
  }
}

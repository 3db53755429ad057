/**
 * The one error of this room: an image that cannot be used, with its name, its fault and a cure.
 * Also the opening of image files, since a missing file or a directory is the commonest fault of all.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { VmmError } from '../base/errors.js';

/** ERR_KERNEL_IMAGE: `what` is the file or thing as the user named it, `fault` what is wrong with it. */
export function imageError(what: string, fault: string, cure: string, cause?: unknown): VmmError {
  return new VmmError('ERR_KERNEL_IMAGE', `${what}: ${fault}`, cause === undefined ? { cure } : { cause, cure });
}

/** An open image: its name for messages, its size, and bounded reads. */
export interface ImageFile {
  /** What it is, and its path: "kernel '/boot/vmlinuz'". */
  readonly label: string;
  readonly path: string;
  readonly sizeBytes: number;
  /** For loaders that hand reads to native code; -1 for bytes in memory. */
  readonly fd: number;
  readonly stat: { readonly dev: bigint; readonly ino: bigint; readonly mtimeNs: bigint; readonly ctimeNs: bigint };
  /** Exactly `length` bytes at `offset`. @throws VmmError ERR_KERNEL_IMAGE when the file ends before. */
  read(offset: number, length: number): Uint8Array;
  /** Fills `target` from `offset`. @throws VmmError ERR_KERNEL_IMAGE as read. */
  readInto(offset: number, target: Uint8Array): void;
  close(): void;
}

/**
 * Opens an image file.
 *
 * @param role what it is to the user: 'kernel', 'initrd', 'flat image', 'module'.
 * @throws VmmError ERR_KERNEL_IMAGE when it is missing, unreadable, not a regular file or empty.
 */
export function openImage(role: string, path: string): ImageFile {
  const label = `${role} '${path}'`;
  let fd: number;
  try {
    // Without O_NONBLOCK the open of a FIFO would wait for a writer that may never come.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw imageError(label, openFault(cause), `give the path of a readable ${role} file`, cause);
  }
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (stat.isDirectory()) throw imageError(label, 'it is a directory', `give the path of the ${role} file itself`);
    if (!stat.isFile()) throw imageError(label, 'it is no regular file', `copy the ${role} to a regular file first`);
    if (stat.size === 0n) throw imageError(label, 'the file is empty', `fetch or build the ${role} again`);
    return new OpenImage(label, path, Number(stat.size), fd, stat);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openFault(cause: unknown): string {
  switch ((cause as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return 'there is no such file';
    case 'ENOTDIR':
      return 'a part of its path is no directory';
    case 'EACCES':
    case 'EPERM':
      return 'it may not be read';
    case 'ELOOP':
      return 'its symbolic links go in a circle';
    default:
      return `it cannot be opened (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`;
  }
}

function truncated(label: string, sizeBytes: number, wantedBytes: number): VmmError {
  return imageError(
    label,
    `the file is truncated: it has ${sizeBytes} bytes, and at least ${wantedBytes} are wanted`,
    'fetch or copy it again',
  );
}

class OpenImage implements ImageFile {
  readonly label: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly fd: number;
  readonly stat: ImageFile['stat'];
  #open = true;

  constructor(label: string, path: string, sizeBytes: number, fd: number, stat: ImageFile['stat']) {
    this.label = label;
    this.path = path;
    this.sizeBytes = sizeBytes;
    this.fd = fd;
    this.stat = { dev: stat.dev, ino: stat.ino, mtimeNs: stat.mtimeNs, ctimeNs: stat.ctimeNs };
  }

  read(offset: number, length: number): Uint8Array {
    // A length taken from a hostile header is held against the file before anything is allocated.
    if (offset + length > this.sizeBytes) throw truncated(this.label, this.sizeBytes, offset + length);
    const target = new Uint8Array(length);
    this.readInto(offset, target);
    return target;
  }

  readInto(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      let count: number;
      try {
        count = readSync(this.fd, target, done, target.length - done, offset + done);
      } catch (cause) {
        throw imageError(this.label, 'it cannot be read', 'check the disk that it is on', cause);
      }
      if (count === 0) throw truncated(this.label, this.sizeBytes, offset + target.length);
      done += count;
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}

/** Bytes that are in memory already, as an image. */
export function memoryImage(label: string, bytes: Uint8Array): ImageFile {
  const read = (offset: number, length: number): Uint8Array => {
    if (offset + length > bytes.length) throw truncated(label, bytes.length, offset + length);
    return bytes.subarray(offset, offset + length);
  };
  return {
    label,
    path: '',
    sizeBytes: bytes.length,
    fd: -1,
    stat: { dev: 0n, ino: 0n, mtimeNs: 0n, ctimeNs: 0n },
    read: (offset, length) => read(offset, length).slice(),
    readInto: (offset, target) => target.set(read(offset, target.length)),
    close: () => undefined,
  };
}

/**
 * What is packed inside a bzImage: which compression, and the vmlinux unpacked from it on the host, so that the guest
 * need not spend its own time on that. Formats that this host cannot unpack are an answer, not an error: the bzImage
 * then unpacks itself in the guest.
 */
import { execFile } from 'node:child_process';
import * as zlib from 'node:zlib';
import { decompress } from 'fzstd';
import { MiB } from '../base/units.js';
import { viewOf } from './bytes.js';
import { unpackLz4Legacy } from './lz4.js';

export type PayloadFormat = 'gzip' | 'lz4' | 'zstd' | 'xz' | 'lzma' | 'bzip2' | 'lzo' | 'elf' | 'unknown';

/** The most that a kernel may unpack to: distribution kernels take 50 to 120 MB. */
const MAX_UNPACKED_BYTES = 1024 * MiB;
/** All formats but gzip get the unpacked size appended, four bytes little endian (size_append in scripts/Makefile.lib). */
export const SIZE_TRAILER_BYTES = 4;

const MAGICS: readonly (readonly [PayloadFormat, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lzma', [0x5d, 0x00, 0x00]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
  ['elf', [0x7f, 0x45, 0x4c, 0x46]],
];

/** The compression, by the magic number at the payload's start. */
export function payloadFormat(head: Uint8Array): PayloadFormat {
  return MAGICS.find(([, magic]) => magic.every((byte, index) => head[index] === byte))?.[0] ?? 'unknown';
}

/** The unpacked size as the payload's last four bytes give it (gzip has it there by its own format). */
export function unpackedSize(tail: Uint8Array): number {
  return viewOf(tail).getUint32(tail.length - 4, true);
}

const letOthersRun = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * Unpacks a payload.
 *
 * @returns the unpacked bytes, or undefined when this host has nothing to unpack the format with.
 * @throws Error when the data are damaged.
 */
export async function unpackPayload(payload: Uint8Array): Promise<Uint8Array | undefined> {
  const format = payloadFormat(payload);
  if (payload.length < 16) throw new Error('the payload is too short');
  const sizeBytes = unpackedSize(payload);
  if (sizeBytes > MAX_UNPACKED_BYTES) throw new Error(`the payload says that it unpacks to ${sizeBytes} bytes`);
  const packed = payload.subarray(0, payload.length - SIZE_TRAILER_BYTES);
  let unpacked: Uint8Array | undefined;
  switch (format) {
    case 'gzip':
      unpacked = await gunzipBytes(payload, sizeBytes);
      break;
    case 'lz4':
      unpacked = await unpackLz4Legacy(packed, sizeBytes, letOthersRun);
      break;
    case 'zstd':
      unpacked = await unzstd(packed, sizeBytes);
      break;
    case 'xz':
      unpacked = await throughCommand('xz', ['--decompress', '--stdout'], packed, sizeBytes);
      break;
    case 'lzma':
      unpacked = await throughCommand('xz', ['--format=lzma', '--decompress', '--stdout'], packed, sizeBytes);
      break;
    case 'bzip2':
    case 'lzo':
    case 'elf':
    case 'unknown':
      return undefined;
  }
  if (unpacked !== undefined && unpacked.length !== sizeBytes) {
    throw new Error(`${format} data unpack to ${unpacked.length} bytes, and ${sizeBytes} are wanted`);
  }
  return unpacked;
}

function gunzipBytes(payload: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    zlib.gunzip(payload, { maxOutputLength: Math.max(1, sizeBytes) }, (error, result) => {
      if (error) reject(error);
      else resolve(result);
    });
  });
}

/** zlib.zstdDecompress came with Node 22.15; the types are those of Node 20. */
type ZstdDecompress = (
  data: Uint8Array,
  options: { maxOutputLength: number },
  done: (error: Error | null, result: Uint8Array) => void,
) => void;

async function unzstd(packed: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  const native = (zlib as unknown as { zstdDecompress?: ZstdDecompress }).zstdDecompress;
  if (native) {
    return new Promise((resolve, reject) => {
      native(packed, { maxOutputLength: Math.max(1, sizeBytes) }, (error, result) => {
        if (error) reject(error);
        else resolve(result);
      });
    });
  }
  // The command takes a tenth of the time, and not this thread's.
  const byCommand = await throughCommand('zstd', ['--decompress', '--stdout', '--memory=2048MB'], packed, sizeBytes);
  // Without it, into a buffer of the size that the payload names: the package's streaming form copies its window at
  // every block. It never writes past the buffer; what a frame that is too short leaves out stays zero.
  return byCommand ?? decompress(packed, new Uint8Array(sizeBytes));
}

/** Through a command of this system; undefined when there is none of that name, or only busybox's, which knows no filters of kernels. */
function throughCommand(
  command: string,
  args: readonly string[],
  packed: Uint8Array,
  sizeBytes: number,
): Promise<Uint8Array | undefined> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { encoding: 'buffer', maxBuffer: sizeBytes + 1 },
      (error: (Error & { code?: string | number | null | undefined }) | null, stdout: Buffer, stderr: Buffer) => {
        if (error?.code === 'ENOENT' || (error && stderr.includes('BusyBox'))) resolve(undefined);
        else if (error) reject(new Error(`${command} cannot unpack it`, { cause: error }));
        else resolve(stdout);
      },
    );
    // A command that gives up early closes its stdin; what it says by its exit status is enough.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(packed);
  });
}

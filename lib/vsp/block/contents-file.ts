/**
 * A disk's contents in a file of a snapshot: those of a disk in memory, or of a copy-on-write overlay. Little-endian:
 *
 *   0 'VIVDISK1' | 8 u32 bytes of a unit | 12 u32 units | 16 u64 bytes of the disk
 *   24 a u64 for each unit: twice its index, and one more where it is all zeroes; ascending
 *   .. the units that are not, in the same order
 *
 * The SHA-256 of the whole stands with whoever refers to the file. Nothing of it is believed before that was checked.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { AbortError, VmmError } from '../../base/errors.js';
import { naming, writeAt } from '../../base/system-call.js';
import { MiB } from '../../base/units.js';
import { ZERO_UNIT, type FrozenUnits } from './unit-store.js';

const MAGIC = 'VIVDISK1';
const HEADER_BYTES = 24;
const ENTRY_BYTES = 8;
const MAX_UNIT_BYTES = MiB;
const PIECE_BYTES = MiB;

export interface WrittenContents {
  readonly fileBytes: number;
  readonly sha256: string;
}

/** Writes a new file of mode 0600, durable when this resolves. @throws SystemError naming it; AbortError. */
export function writeContents(
  file: string,
  contents: FrozenUnits,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<WrittenContents> {
  return naming(file, () => write(file, contents, sizeBytes, signal));
}

async function write(
  file: string,
  { unitBytes, units }: FrozenUnits,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<WrittenContents> {
  const indices = [...units.keys()].sort((a, b) => a - b);
  const head = new DataView(new ArrayBuffer(HEADER_BYTES + ENTRY_BYTES * indices.length));
  Buffer.from(head.buffer).write(MAGIC, 'latin1');
  head.setUint32(8, unitBytes, true);
  head.setUint32(12, indices.length, true);
  head.setBigUint64(16, BigInt(sizeBytes), true);
  for (const [at, index] of indices.entries()) {
    const isZero = units.get(index)!.length === 0;
    head.setBigUint64(HEADER_BYTES + ENTRY_BYTES * at, BigInt(index) * 2n + (isZero ? 1n : 0n), true);
  }
  const hash = createHash('sha256');
  const handle = await open(file, 'wx', 0o600);
  try {
    let fileBytes = 0;
    const put = async (parts: readonly Uint8Array[]): Promise<void> => {
      if (signal?.aborted === true) throw new AbortError(signal);
      const piece = Buffer.concat(parts);
      hash.update(piece);
      await writeAt(handle, piece, fileBytes);
      fileBytes += piece.length;
    };
    await put([new Uint8Array(head.buffer)]);
    let parts: Uint8Array[] = [];
    for (const index of indices) {
      parts.push(units.get(index)!);
      if (parts.length * unitBytes < PIECE_BYTES) continue;
      await put(parts);
      parts = [];
    }
    await put(parts);
    await handle.sync();
    return { fileBytes, sha256: hash.digest('hex') };
  } finally {
    await handle.close();
  }
}

/** @throws VmmError ERR_SNAPSHOT for a file that is not the one that was written, ERR_SYSTEM. */
export async function readContents(
  file: string,
  wanted: WrittenContents & { readonly sizeBytes: number },
): Promise<{ readonly unitBytes: number; readonly units: Map<number, Uint8Array> }> {
  const wrong = (why: string): VmmError => new VmmError('ERR_SNAPSHOT', `${file}: contents of a disk: ${why}`);
  const handle = await open(file, 'r').catch((cause: unknown) => {
    throw new VmmError('ERR_SNAPSHOT', `${file} can't be opened: ${(cause as Error).message}`, { cause });
  });
  try {
    const { size } = await handle.stat();
    if (size !== wanted.fileBytes) throw wrong(`${size} bytes, where ${wanted.fileBytes} were written`);
    const hash = createHash('sha256');
    let at = 0;
    const take = async (lengthBytes: number): Promise<Uint8Array> => {
      if (at + lengthBytes > size) throw wrong('it ends too early');
      const bytes = new Uint8Array(lengthBytes);
      for (let done = 0; done < lengthBytes;) {
        const { bytesRead } = await handle.read(bytes, done, lengthBytes - done, at + done);
        if (bytesRead === 0) throw wrong('it ends too early');
        done += bytesRead;
      }
      at += lengthBytes;
      hash.update(bytes);
      return bytes;
    };
    const header = new DataView((await take(HEADER_BYTES)).buffer);
    if (Buffer.from(header.buffer, 0, 8).toString('latin1') !== MAGIC) throw wrong('it is none');
    const unitBytes = header.getUint32(8, true);
    const count = header.getUint32(12, true);
    if (unitBytes < 512 || unitBytes > MAX_UNIT_BYTES || header.getBigUint64(16, true) !== BigInt(wanted.sizeBytes)) {
      throw wrong('of a disk of another size');
    }
    const last = Math.ceil(wanted.sizeBytes / unitBytes) - 1;
    const entries = new BigUint64Array((await take(ENTRY_BYTES * count)).buffer);
    const units = new Map<number, Uint8Array>();
    let before = -1;
    for (const entry of entries) {
      const index = Number(entry >> 1n);
      if (index <= before || index > last) throw wrong(`unit ${index} behind ${before} of ${last}`);
      before = index;
      units.set(index, (entry & 1n) === 1n ? ZERO_UNIT : await take(unitBytes));
    }
    if (at !== size) throw wrong('something stands behind it');
    if (hash.digest('hex') !== wanted.sha256) throw wrong('its checksum is wrong');
    return { unitBytes, units };
  } finally {
    await handle.close();
  }
}

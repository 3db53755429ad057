/**
 * Decoder for LZ4's legacy frame, in which Linux packs kernels (`lz4 -l`): a magic number, then blocks of at most 8 MiB
 * unpacked, each with its packed length before it. Source: lz4/doc/lz4_Frame_format.md ("Legacy frame") and
 * lz4_Block_format.md. The input is hostile: every length is checked before it is followed.
 */

export const LZ4_LEGACY_MAGIC = 0x184c2102;
const MAX_BLOCK_BYTES = 8 * 1024 * 1024;
/** LZ4_compressBound(MAX_BLOCK_BYTES). */
const MAX_PACKED_BLOCK_BYTES = MAX_BLOCK_BYTES + Math.floor(MAX_BLOCK_BYTES / 255) + 16;
const MIN_MATCH = 4;

/**
 * Unpacks a legacy frame of known unpacked size.
 *
 * @param pause called between blocks, so that a caller may let others run.
 * @throws Error saying what is wrong with the data.
 */
export async function unpackLz4Legacy(
  packed: Uint8Array,
  unpackedBytes: number,
  pause: () => Promise<void> = () => Promise.resolve(),
): Promise<Uint8Array> {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length < 4 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) throw new Error('no LZ4 legacy frame');
  const output = new Uint8Array(unpackedBytes);
  let written = 0;
  let at = 4;
  while (at + 4 <= packed.length) {
    const blockBytes = view.getUint32(at, true);
    at += 4;
    // Frames may follow one another: the next one's magic stands where a length would.
    if (blockBytes === LZ4_LEGACY_MAGIC) continue;
    if (blockBytes === 0 || blockBytes > MAX_PACKED_BLOCK_BYTES || at + blockBytes > packed.length) {
      throw new Error(`LZ4 block of ${blockBytes} bytes at ${at}`);
    }
    const limit = Math.min(output.length, written + MAX_BLOCK_BYTES);
    written = unpackLz4Block(packed, at, at + blockBytes, output, written, limit);
    at += blockBytes;
    await pause();
  }
  if (at !== packed.length) throw new Error(`${packed.length - at} bytes after the last LZ4 block`);
  if (written !== unpackedBytes)
    throw new Error(`LZ4 data unpack to ${written} bytes, and ${unpackedBytes} are wanted`);
  return output;
}

/**
 * Unpacks one block into output[start, limit).
 *
 * @returns the end of what was written. @throws Error for a length or an offset that leads outside.
 */
export function unpackLz4Block(
  input: Uint8Array,
  inputStart: number,
  inputEnd: number,
  output: Uint8Array,
  start: number,
  limit: number,
): number {
  let at = inputStart;
  let to = start;
  while (at < inputEnd) {
    const token = input[at++]!;

    let literals = token >> 4;
    if (literals === 15) {
      let more: number;
      do {
        if (at >= inputEnd) throw new Error('LZ4 literal length is cut off');
        more = input[at++]!;
        literals += more;
      } while (more === 255);
    }
    if (at + literals > inputEnd || to + literals > limit) throw new Error(`${literals} LZ4 literals lead outside`);
    // Most runs are short: a loop beats a call of the runtime there.
    if (literals > 32) {
      output.set(input.subarray(at, at + literals), to);
      at += literals;
      to += literals;
    } else {
      for (const end = at + literals; at < end;) output[to++] = input[at++]!;
    }
    if (at === inputEnd) break; // the last sequence has literals only

    if (at + 2 > inputEnd) throw new Error('LZ4 offset is cut off');
    const offset = input[at]! | (input[at + 1]! << 8);
    at += 2;
    if (offset === 0 || offset > to - start) throw new Error(`LZ4 offset ${offset} leads outside`);
    let length = (token & 15) + MIN_MATCH;
    if (length === 15 + MIN_MATCH) {
      let more: number;
      do {
        if (at >= inputEnd) throw new Error('LZ4 match length is cut off');
        more = input[at++]!;
        length += more;
      } while (more === 255);
    }
    if (to + length > limit) throw new Error(`an LZ4 match of ${length} bytes leads outside`);
    let from = to - offset;
    if (length > 64 && offset >= length) {
      output.copyWithin(to, from, from + length);
      to += length;
    } else {
      // The match may reach into what it writes itself; byte by byte that repeats the pattern, as it must.
      for (const end = to + length; to < end;) output[to++] = output[from++]!;
    }
  }
  return to;
}

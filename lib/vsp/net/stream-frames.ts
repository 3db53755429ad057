/**
 * Frames on a stream, each behind its length in four bytes, big endian: what passt speaks on its socket, and our links
 * between switches. Whoever is at the other end may send anything in any pieces: no more than one frame of the greatest
 * length is ever kept here, and a length that can't be one ends the stream, since nobody knows where the next would be.
 *
 * | offset | size   | field                                            |
 * | 0      | 4      | length in bytes, big endian, of what follows     |
 * | 4      | length | for passt the frame; on a link a header before it |
 */

export const LENGTH_BYTES = 4;

export class FrameReader {
  /** Why the stream is beyond repair; nothing is read any more then. */
  broken: string | undefined;
  readonly #minBytes: number;
  readonly #maxBytes: number;
  readonly #length = new Uint8Array(LENGTH_BYTES);
  #lengthHave = 0;
  /** The frame whose end has not come yet. */
  #partial: Uint8Array | undefined;
  #partialHave = 0;

  constructor(limits: { minBytes: number; maxBytes: number }) {
    this.#minBytes = limits.minBytes;
    this.#maxBytes = limits.maxBytes;
  }

  /** Bytes that wait for the rest of a frame. */
  get pendingBytes(): number {
    return this.#lengthHave + this.#partialHave;
  }

  /** The frames that are whole with these bytes, in order; views of them as far as that can be. */
  push(chunk: Uint8Array): Uint8Array[] {
    // No Buffer, whose slice() does not copy: frames go to those who rely on it.
    const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    const frames: Uint8Array[] = [];
    for (let at = 0; at < bytes.length && this.broken === undefined;) {
      at += this.#partial === undefined ? this.#begin(bytes, at, frames) : this.#goOn(bytes, at, frames);
    }
    return frames;
  }

  /** At a length, or inside of one. The bytes that were used. */
  #begin(bytes: Uint8Array, at: number, frames: Uint8Array[]): number {
    const taken = Math.min(LENGTH_BYTES - this.#lengthHave, bytes.length - at);
    this.#length.set(bytes.subarray(at, at + taken), this.#lengthHave);
    this.#lengthHave += taken;
    if (this.#lengthHave < LENGTH_BYTES) return taken;
    this.#lengthHave = 0;
    const lengthBytes = this.#length.reduce((value, byte) => value * 256 + byte, 0);
    if (lengthBytes < this.#minBytes || lengthBytes > this.#maxBytes) {
      this.broken = `a frame of ${lengthBytes} bytes`;
      return taken;
    }
    const from = at + taken;
    if (bytes.length - from < lengthBytes) {
      this.#partial = new Uint8Array(lengthBytes);
      this.#partialHave = 0;
      return taken;
    }
    frames.push(bytes.subarray(from, from + lengthBytes));
    return taken + lengthBytes;
  }

  #goOn(bytes: Uint8Array, at: number, frames: Uint8Array[]): number {
    const partial = this.#partial!;
    const taken = Math.min(partial.length - this.#partialHave, bytes.length - at);
    partial.set(bytes.subarray(at, at + taken), this.#partialHave);
    this.#partialHave += taken;
    if (this.#partialHave === partial.length) {
      frames.push(partial);
      this.#partial = undefined;
      this.#partialHave = 0;
    }
    return taken;
  }
}

/** Room for frames of these lengths, with the lengths in it; `put` writes what stands behind the one at `index`. */
export function framed(
  lengthsBytes: readonly number[],
  put: (index: number, all: Uint8Array, at: number) => void,
): Uint8Array {
  const total = lengthsBytes.reduce((sum, lengthBytes) => sum + LENGTH_BYTES + lengthBytes, 0);
  const all = new Uint8Array(total);
  const view = new DataView(all.buffer);
  let at = 0;
  lengthsBytes.forEach((lengthBytes, index) => {
    view.setUint32(at, lengthBytes);
    put(index, all, at + LENGTH_BYTES);
    at += LENGTH_BYTES + lengthBytes;
  });
  return all;
}

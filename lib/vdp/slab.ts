/**
 * Room for short-lived copies of guest data: pieces of larger blocks, since a block for each copy costs more than the copy.
 * A piece belongs to whoever got it, for as long as he likes; a block goes when all of its pieces have gone.
 */
import { KiB } from '../base/units.js';

const BLOCK_BYTES = 64 * KiB;
/** A longer one gets a block of its own. */
const LONGEST_BYTES = BLOCK_BYTES / 8;

export class Slab {
  #block = new ArrayBuffer(0);
  #usedBytes = 0;

  /** All zero. */
  take(lengthBytes: number): Uint8Array {
    if (lengthBytes > LONGEST_BYTES) return new Uint8Array(lengthBytes);
    if (this.#usedBytes + lengthBytes > this.#block.byteLength) {
      this.#block = new ArrayBuffer(BLOCK_BYTES);
      this.#usedBytes = 0;
    }
    const piece = new Uint8Array(this.#block, this.#usedBytes, lengthBytes);
    this.#usedBytes += lengthBytes;
    return piece;
  }
}

/**
 * Bytes that wait, in the order in which they came. Small pieces are gathered in blocks, so that a guest that gives its
 * output byte by byte costs the host the bytes and not an object for each.
 */

const BLOCK_BYTES = 16 * 1024;
/** From here on a piece is kept as it is. */
const LARGE_BYTES = 4 * 1024;

export class ByteBacklog {
  #whole: Uint8Array[] = [];
  #block: Uint8Array | undefined;
  /** Where the block's bytes start that are not in `#whole`, and where they end. */
  #from = 0;
  #to = 0;
  #bytes = 0;

  get lengthBytes(): number {
    return this.#bytes;
  }

  /** A large piece is kept, a small one copied. */
  append(piece: Uint8Array): void {
    this.#bytes += piece.length;
    if (piece.length >= LARGE_BYTES) {
      this.#closePart();
      this.#whole.push(piece);
      return;
    }
    for (let done = 0; done < piece.length;) {
      if (!this.#block || this.#to === BLOCK_BYTES) {
        this.#closePart();
        this.#block = new Uint8Array(BLOCK_BYTES);
        this.#from = this.#to = 0;
      }
      const part = piece.subarray(done, done + BLOCK_BYTES - this.#to);
      this.#block.set(part, this.#to);
      this.#to += part.length;
      done += part.length;
    }
  }

  /** All of it as few pieces, which never change. The bytes stay. */
  pieces(): Uint8Array[] {
    this.#closePart();
    return [...this.#whole];
  }

  /** The same, and nothing is left. */
  take(): Uint8Array[] {
    this.#closePart();
    const taken = this.#whole;
    this.#whole = [];
    this.#bytes = 0;
    return taken;
  }

  /** Forgets the oldest bytes beyond `lengthBytes`. */
  keepLast(lengthBytes: number): void {
    this.#closePart();
    let excess = this.#bytes - lengthBytes;
    let count = 0;
    for (; excess > 0; count++) {
      const piece = this.#whole[count]!;
      if (piece.length > excess) {
        this.#whole[count] = piece.subarray(excess);
        this.#bytes -= excess;
        break;
      }
      excess -= piece.length;
      this.#bytes -= piece.length;
    }
    this.#whole.splice(0, count);
  }

  #closePart(): void {
    if (this.#block && this.#to > this.#from) this.#whole.push(this.#block.subarray(this.#from, this.#to));
    this.#from = this.#to;
  }
}

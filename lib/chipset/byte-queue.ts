/**
 * A queue of bytes in chunks, for what waits on the host's side of a character device: receivers of the UARTs and the
 * guest channel. It copies what it is given and never limits itself; its users bound it by what they accept.
 */

export class ByteQueue {
  #chunks: Uint8Array[] = [];
  /** Index of the first chunk that still holds bytes, and how many of its bytes are taken. */
  #head = 0;
  #taken = 0;
  #length = 0;

  /** Bytes waiting. */
  get length(): number {
    return this.#length;
  }

  /** Appends a copy of `bytes`. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes.slice());
    this.#length += bytes.length;
  }

  /** The next byte, or -1 when there is none. */
  shift(): number {
    const chunk = this.#chunks[this.#head];
    if (chunk === undefined) return -1;
    const byte = chunk[this.#taken] ?? 0;
    this.#advance(chunk, 1);
    return byte;
  }

  /** Moves up to `target.length` bytes into `target`; how many there were. */
  take(target: Uint8Array): number {
    let done = 0;
    while (done < target.length) {
      const chunk = this.#chunks[this.#head];
      if (chunk === undefined) break;
      const count = Math.min(chunk.length - this.#taken, target.length - done);
      target.set(chunk.subarray(this.#taken, this.#taken + count), done);
      this.#advance(chunk, count);
      done += count;
    }
    return done;
  }

  /** A copy of what waits. */
  copy(): Uint8Array {
    const copy = new Uint8Array(this.#length);
    let done = 0;
    for (let index = this.#head; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index]!;
      const waiting = index === this.#head ? chunk.subarray(this.#taken) : chunk;
      copy.set(waiting, done);
      done += waiting.length;
    }
    return copy;
  }

  clear(): void {
    this.#chunks = [];
    this.#head = this.#taken = this.#length = 0;
  }

  #advance(chunk: Uint8Array, count: number): void {
    this.#taken += count;
    this.#length -= count;
    if (this.#taken < chunk.length) return;
    this.#taken = 0;
    this.#chunks[this.#head] = EMPTY;
    this.#head++;
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#head = 0;
    } else if (this.#head >= 1024) {
      this.#chunks.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

const EMPTY = new Uint8Array(0);

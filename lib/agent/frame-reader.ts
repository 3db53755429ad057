/**
 * Cuts a byte stream into frames. Chunks come in any size; a frame that lies within one chunk is handed on without a
 * copy. A payload is buffered only after its length was found to be within bounds, so a hostile sender costs at most
 * one frame of memory.
 */
import { FRAME_MAGIC, HEADER_BYTES, ProtocolError, type Frame } from './protocol.js';

export class FrameReader {
  readonly #maxPayload: number;
  readonly #onFrame: (frame: Frame) => void;
  /** The start of a frame that is not complete yet. */
  #held: Uint8Array = new Uint8Array(0);
  #heldLength = 0;

  constructor(maxPayload: number, onFrame: (frame: Frame) => void) {
    this.#maxPayload = maxPayload;
    this.#onFrame = onFrame;
  }

  /** Bytes that wait for the rest of their frame. */
  get pendingBytes(): number {
    return this.#heldLength;
  }

  /**
   * Takes the next bytes of the stream and hands on every frame that they complete.
   *
   * @throws ProtocolError at a header that breaks the rules; the reader is of no use afterwards.
   */
  push(chunk: Uint8Array): void {
    let offset = 0;
    if (this.#heldLength > 0) offset = this.#complete(chunk);
    while (offset < chunk.length) {
      const rest = chunk.length - offset;
      if (rest < HEADER_BYTES) break;
      const total = this.#frameBytes(chunk, offset);
      if (rest < total) break;
      this.#emit(chunk.subarray(offset, offset + total));
      offset += total;
    }
    if (offset < chunk.length) this.#hold(chunk.subarray(offset));
  }

  /** Fills up the held frame; how much of the chunk went into it. */
  #complete(chunk: Uint8Array): number {
    let taken = 0;
    if (this.#heldLength < HEADER_BYTES) {
      taken = Math.min(HEADER_BYTES - this.#heldLength, chunk.length);
      this.#append(chunk.subarray(0, taken), HEADER_BYTES);
      if (this.#heldLength < HEADER_BYTES) return taken;
    }
    const total = this.#frameBytes(this.#held, 0);
    const more = Math.min(total - this.#heldLength, chunk.length - taken);
    this.#append(chunk.subarray(taken, taken + more), total);
    taken += more;
    if (this.#heldLength === total) {
      const frame = this.#held.subarray(0, total);
      this.#held = new Uint8Array(0);
      this.#heldLength = 0;
      this.#emit(frame);
    }
    return taken;
  }

  #hold(rest: Uint8Array): void {
    const total = rest.length >= HEADER_BYTES ? this.#frameBytes(rest, 0) : HEADER_BYTES;
    this.#append(rest, total);
  }

  #append(bytes: Uint8Array, capacity: number): void {
    if (this.#held.length < capacity) {
      const grown = new Uint8Array(capacity);
      grown.set(this.#held.subarray(0, this.#heldLength));
      this.#held = grown;
    }
    this.#held.set(bytes, this.#heldLength);
    this.#heldLength += bytes.length;
  }

  #frameBytes(bytes: Uint8Array, offset: number): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset + offset, HEADER_BYTES);
    const length = view.getUint32(0, true);
    if (view.getUint8(5) !== FRAME_MAGIC || view.getUint16(6, true) !== 0) {
      throw new ProtocolError('the stream is out of step: no frame header where one is due');
    }
    if (length > this.#maxPayload) {
      throw new ProtocolError(`a frame of ${length} bytes; at most ${this.#maxPayload} are allowed`);
    }
    return HEADER_BYTES + length;
  }

  #emit(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
    this.#onFrame({
      type: view.getUint8(4),
      session: view.getUint32(8, true),
      payload: bytes.subarray(HEADER_BYTES),
    });
  }
}

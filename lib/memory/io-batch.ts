/**
 * Writes a batch of requests into the area that is shared with the addon, and reads completions out of it: the one
 * place in TypeScript that knows the area's layout (IoArea of kvm/native.ts). It chooses nothing.
 */
import { IoArea, IoCompletion, IoPiece, IoRecord } from '../kvm/native.js';
import type { AddressSpace } from './address-space.js';
import type { GuestVector } from './io-vector.js';

const RECORD_WORDS = IoRecord.STRIDE / 4;
const PIECE_WORDS = IoPiece.STRIDE / 4;
const PIECES_WORD = IoArea.PIECES_AT / 4;
const COMPLETION_WORDS = IoCompletion.STRIDE / 4;
const COMPLETIONS_WORD = IoArea.COMPLETIONS_AT / 4;
const TWO_TO_32 = 2 ** 32;

export class IoBatch {
  readonly #memory: AddressSpace;
  readonly #words: Uint32Array;
  readonly #results: Int32Array;
  #records = 0;
  #pieces = 0;

  constructor(area: ArrayBuffer, memory: AddressSpace) {
    this.#memory = memory;
    this.#words = new Uint32Array(area);
    this.#results = new Int32Array(area);
  }

  /** Records written. */
  get length(): number {
    return this.#records;
  }

  /** To begin the next batch. */
  clear(): void {
    this.#records = 0;
    this.#pieces = 0;
  }

  /** Whether a request of so many pieces belongs into this batch: an empty one takes any, or the first part of it. */
  hasRoomFor(pieces: number): boolean {
    if (this.#records === IoArea.ENTRIES) return false;
    return this.#records === 0 || pieces <= IoArea.PIECES - this.#pieces;
  }

  /**
   * Adds a transfer of `data` from byte `moved` on, as much of it as one record takes: returns the bytes.
   *
   * @throws VmmError when the memory was closed, or a piece is outside it; then nothing was added.
   */
  addTransfer(tag: number, op: number, fd: number, offset: number, data: GuestVector, moved: number): number {
    const { gpas, lengths } = data;
    const firstPiece = this.#pieces;
    const limit = Math.min(IoArea.RECORD_PIECES, IoArea.PIECES - firstPiece);
    const words = this.#words;
    let at = PIECES_WORD + firstPiece * PIECE_WORDS;
    let count = 0;
    let bytes = 0;
    let skip = moved;
    for (let index = 0; index < gpas.length && count < limit; index++) {
      let length = lengths[index]!;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      length -= skip;
      const start = this.#memory.mappingOffset(gpas[index]! + skip, length);
      skip = 0;
      words[at] = start;
      words[at + 1] = start / TWO_TO_32;
      words[at + 2] = length;
      words[at + 3] = length / TWO_TO_32;
      at += PIECE_WORDS;
      count++;
      bytes += length;
    }
    this.#pieces += count;
    this.add(tag, op, fd, offset, 0, firstPiece, count);
    return bytes;
  }

  add(tag: number, op: number, fd: number, offset: number, lengthBytes: number, firstPiece = 0, pieces = 0): void {
    const words = this.#words;
    const at = this.#records++ * RECORD_WORDS;
    words[at + IoRecord.OP / 4] = op;
    words[at + IoRecord.FD / 4] = fd;
    words[at + IoRecord.OFFSET / 4] = offset;
    words[at + IoRecord.OFFSET / 4 + 1] = offset / TWO_TO_32;
    words[at + IoRecord.LENGTH / 4] = lengthBytes;
    words[at + IoRecord.LENGTH / 4 + 1] = lengthBytes / TWO_TO_32;
    words[at + IoRecord.FIRST_PIECE / 4] = firstPiece;
    words[at + IoRecord.PIECE_COUNT / 4] = pieces;
    words[at + IoRecord.TAG / 4] = tag;
  }

  completionTag(index: number): number {
    return this.#words[COMPLETIONS_WORD + index * COMPLETION_WORDS]!;
  }

  completionResult(index: number): number {
    return this.#results[COMPLETIONS_WORD + index * COMPLETION_WORDS + IoCompletion.RESULT / 4]!;
  }
}

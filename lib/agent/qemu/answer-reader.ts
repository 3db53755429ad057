/**
 * Cuts what QEMU's guest agent sends into lines: one answer in JSON each, in UTF-8. The byte 0xff, which UTF-8 never has, stands in
 * front of the answer to `guest-sync-delimited`: what came before it is of another conversation. The guest is hostile: a line that is
 * longer than is wanted is dropped as it comes, and what is held of one costs no more than its own size, in however small pieces it comes.
 */

export const SENTINEL = 0xff;
const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const FIRST_CAPACITY = 4096;
const NOTHING = new Uint8Array(0);

export interface AnswerLine {
  /** Without its end. The callee's to keep. */
  readonly bytes: Uint8Array;
  /** The sentinel stood in front of it. */
  readonly isDelimited: boolean;
}

export interface AnswerEvents {
  onLine(line: AnswerLine): void;
  /** A line was longer than `maxLineBytes`; nothing of it is kept, and it has not ended yet. */
  onOverlong(): void;
}

export class AnswerReader {
  /** Of a line, from its next byte on. */
  maxLineBytes: number;
  readonly #events: AnswerEvents;
  #held: Uint8Array = NOTHING;
  #heldBytes = 0;
  #isDelimited = false;
  #isSkipping = false;

  constructor(maxLineBytes: number, events: AnswerEvents) {
    this.maxLineBytes = maxLineBytes;
    this.#events = events;
  }

  /** The bytes are copied where they are kept. */
  push(bytes: Uint8Array): void {
    // Each is looked for once, however many of the other there are.
    let newline = placeOf(NEWLINE, bytes, 0);
    let sentinel = placeOf(SENTINEL, bytes, 0);
    for (let from = 0; from < bytes.length;) {
      const end = Math.min(newline, sentinel);
      this.#take(bytes.subarray(from, end));
      from = end + 1;
      if (end === bytes.length) return;
      if (end === newline) {
        this.#endLine();
        newline = placeOf(NEWLINE, bytes, from);
      } else {
        this.reset(true);
        sentinel = placeOf(SENTINEL, bytes, from);
      }
    }
  }

  /** Forgets the line that has begun. */
  reset(isDelimited = false): void {
    this.#held = NOTHING;
    this.#heldBytes = 0;
    this.#isSkipping = false;
    this.#isDelimited = isDelimited;
  }

  #take(piece: Uint8Array): void {
    if (this.#isSkipping || piece.length === 0) return;
    const lengthBytes = this.#heldBytes + piece.length;
    if (lengthBytes > this.maxLineBytes) {
      this.reset();
      this.#isSkipping = true;
      this.#events.onOverlong();
      return;
    }
    if (lengthBytes > this.#held.length) {
      const grown = new Uint8Array(Math.max(lengthBytes, FIRST_CAPACITY, Math.min(2 * lengthBytes, this.maxLineBytes)));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(piece, this.#heldBytes);
    this.#heldBytes = lengthBytes;
  }

  #endLine(): void {
    const last = this.#heldBytes > 0 && this.#held[this.#heldBytes - 1] === CARRIAGE_RETURN ? 1 : 0;
    const line = { bytes: this.#held.subarray(0, this.#heldBytes - last), isDelimited: this.#isDelimited };
    const isWhole = !this.#isSkipping && line.bytes.length > 0;
    // Before it is handed over: whoever gets it may change what is wanted of the next one.
    this.reset();
    if (isWhole) this.#events.onLine(line);
  }
}

/** Of the next such byte; the length of `bytes` where there is none. */
function placeOf(byte: number, bytes: Uint8Array, from: number): number {
  const place = bytes.indexOf(byte, from);
  return place < 0 ? bytes.length : place;
}

/**
 * Output of a guest for any number of viewers: the last part of it is kept for those who come later, and each viewer has a
 * bounded backlog of its own. One that does not keep up loses the oldest of it and is told how much; it never holds the guest.
 */
import { ByteBacklog } from '../machine/byte-backlog.js';

export interface OutputHubOptions {
  /** What is kept for later viewers. Default 1 MiB. */
  readonly keepBytes?: number;
  /** What may wait for one viewer. Default 1 MiB. */
  readonly viewerBytes?: number;
}

export interface ViewOptions {
  /** How much of what was kept comes first. Default: all. */
  readonly tailBytes?: number;
  /** At most so many lines of that; one that has not ended yet counts. */
  readonly tailLines?: number;
  /** False ends the view with what is kept now. Default true. */
  readonly follow?: boolean;
}

/** A piece of output, and how much of what came before it was left out. */
export interface OutputPiece {
  readonly bytes: Uint8Array;
  readonly lostBytes: number;
}

const MiB = 1024 * 1024;
/** A piece is at most so long, so that what is written to a slow socket is little. */
const PIECE_BYTES = 64 * 1024;

export class OutputHub {
  readonly #keepBytes: number;
  readonly #viewerBytes: number;
  readonly #kept = new ByteBacklog();
  readonly #views = new Set<OutputView>();
  #ended = false;

  constructor({ keepBytes = MiB, viewerBytes = MiB }: OutputHubOptions = {}) {
    this.#keepBytes = keepBytes;
    this.#viewerBytes = viewerBytes;
  }

  /** The array is kept. */
  push(bytes: Uint8Array): void {
    this.#kept.append(bytes);
    if (this.#kept.lengthBytes > 2 * this.#keepBytes) this.#kept.keepLast(this.#keepBytes);
    for (const view of this.#views) view.take(bytes);
  }

  /** No more comes: views end after what they have. Idempotent. */
  end(): void {
    this.#ended = true;
    for (const view of this.#views) view.end();
  }

  /** Takes all of a source, at the source's pace. */
  async follow(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const bytes of source) this.push(bytes);
    this.end();
  }

  get viewers(): number {
    return this.#views.size;
  }

  /** What is kept, as pieces that do not change. */
  kept(): Uint8Array[] {
    return lastOf(this.#kept.pieces(), this.#keepBytes);
  }

  view({ tailBytes = Infinity, tailLines = Infinity, follow = true }: ViewOptions = {}): OutputView {
    const view = new OutputView(this.#viewerBytes, () => this.#views.delete(view));
    const kept = lastOf(this.kept(), tailBytes);
    for (const piece of lastOf(kept, bytesOfLastLines(kept, tailLines))) view.take(piece);
    if (follow && !this.#ended) this.#views.add(view);
    else view.end();
    return view;
  }
}

/** What one viewer sees, as pieces in order; `return()` leaves at once. */
export class OutputView implements AsyncIterableIterator<OutputPiece> {
  readonly #maxBytes: number;
  readonly #onGone: () => void;
  readonly #waiting = new ByteBacklog();
  /** Taken out of what waits; what was lost since then was lost behind them. */
  #pieces: OutputPiece[] = [];
  #lostBytes = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(maxBytes: number, onGone: () => void) {
    this.#maxBytes = maxBytes;
    this.#onGone = onGone;
  }

  take(bytes: Uint8Array): void {
    this.#waiting.append(bytes);
    const excess = this.#waiting.lengthBytes - this.#maxBytes;
    if (excess > 0) {
      this.#waiting.keepLast(this.#maxBytes);
      this.#lostBytes += excess;
    }
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<OutputPiece, undefined>> {
    for (;;) {
      const value = this.#shift();
      if (value !== undefined) return { done: false, value };
      if (this.#ended) {
        this.#onGone();
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
  }

  return(): Promise<IteratorResult<OutputPiece, undefined>> {
    this.#pieces = [];
    this.#waiting.take();
    this.#onGone();
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #shift(): OutputPiece | undefined {
    if (this.#pieces.length === 0 && this.#waiting.lengthBytes > 0) {
      this.#pieces = cut(this.#waiting.take()).map((bytes, at) => ({
        bytes,
        lostBytes: at === 0 ? this.#lostBytes : 0,
      }));
      this.#lostBytes = 0;
    }
    return this.#pieces.shift();
  }
}

function cut(pieces: readonly Uint8Array[]): Uint8Array[] {
  return pieces.flatMap((piece) => {
    const count = Math.ceil(piece.length / PIECE_BYTES);
    return Array.from({ length: count }, (_, at) => piece.subarray(at * PIECE_BYTES, (at + 1) * PIECE_BYTES));
  });
}

function lastOf(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const last: Uint8Array[] = [];
  let left = bytes;
  for (let at = pieces.length - 1; at >= 0 && left > 0; at--) {
    const piece = pieces[at]!;
    last.unshift(piece.length > left ? piece.subarray(piece.length - left) : piece);
    left -= piece.length;
  }
  return last;
}

const NEWLINE = 0x0a;

/** How long the last lines of the pieces are together; a newline belongs to the line that it ends. */
export function bytesOfLastLines(pieces: readonly Uint8Array[], lines: number): number {
  if (lines <= 0) return 0;
  let bytes = 0;
  let ends = 0;
  for (let at = pieces.length - 1; at >= 0; at--) {
    const piece = pieces[at]!;
    // The very last byte begins no further line.
    let end = bytes === 0 ? piece.length - 1 : piece.length;
    while (end > 0) {
      end = piece.lastIndexOf(NEWLINE, end - 1);
      if (end >= 0 && ++ends === lines) return bytes + piece.length - end - 1;
    }
    bytes += piece.length;
  }
  return bytes;
}

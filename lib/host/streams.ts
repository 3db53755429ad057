/**
 * The two ends of a session's byte stream: what is written into a FrameWritable on one side of the embedded host comes
 * out of the FrameReadable of the other. The reader grants credit, the writer never sends more than it was granted, so
 * that a stream which nobody reads fills only its own window and never the link that all sessions share.
 */
import { Readable, Writable } from 'node:stream';
import { VmmError } from '../base/errors.js';
import { creditFrame, dataFrame, endFrame, type Frame } from './frames.js';

/** Bytes of one stream that may be under way: several times what the link carries in one round trip. */
export const WINDOW_BYTES = 512 * 1024;
/** One data frame holds at most this, so that sessions take turns on the link. */
export const DATA_FRAME_BYTES = 64 * 1024;

export interface FrameStreamOptions {
  readonly session: number;
  readonly stream: number;
  readonly send: (frame: Frame) => void;
  /** What may be under way to the receiving end. Default {@link WINDOW_BYTES}. */
  readonly windowBytes?: number;
}

/** The sending end. `grant` is called with the credit that the other end gives. */
export class FrameWritable extends Writable {
  readonly #options: FrameStreamOptions;
  #creditBytes = 0;
  #rest: Uint8Array = new Uint8Array(0);
  #callback: ((error?: Error | null) => void) | undefined;

  constructor(options: FrameStreamOptions) {
    super({ highWaterMark: 64 * 1024, decodeStrings: true });
    this.#options = options;
  }

  grant(bytes: number): void {
    this.#creditBytes += bytes;
    this.#pump();
  }

  /** The other end has gone: what is written from now on fails as a closed pipe does. */
  breakPipe(): void {
    if (this.destroyed || this.writableFinished) return;
    const error: NodeJS.ErrnoException = new Error('write EPIPE');
    error.code = 'EPIPE';
    error.syscall = 'write';
    this.destroy(error);
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#rest = chunk;
    this.#callback = callback;
    this.#pump();
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#options.send(endFrame(this.#options.session, this.#options.stream));
    callback();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#rest = new Uint8Array(0);
    this.#callback = undefined;
    callback(error);
  }

  #pump(): void {
    while (this.#rest.length > 0 && this.#creditBytes > 0) {
      const length = Math.min(this.#rest.length, this.#creditBytes, DATA_FRAME_BYTES);
      const payload = this.#rest.subarray(0, length);
      // Before it is sent, since that may bring a grant at once, and with it this same way.
      this.#creditBytes -= length;
      this.#rest = this.#rest.subarray(length);
      this.#options.send(dataFrame(this.#options.session, this.#options.stream, payload));
    }
    if (this.#rest.length > 0 || this.#callback === undefined) return;
    const callback = this.#callback;
    this.#callback = undefined;
    callback();
  }
}

/** The receiving end. Nothing is granted, so nothing comes, before somebody reads. */
export class FrameReadable extends Readable {
  readonly #options: FrameStreamOptions;
  readonly #queue: Uint8Array[] = [];
  #ended = false;
  #wanted = false;
  #opened = false;
  readonly #windowBytes: number;
  /** What the sender may still send without a further grant. */
  #outstandingBytes = 0;
  /** What was consumed and is not granted again yet. */
  #consumedBytes = 0;

  constructor(options: FrameStreamOptions) {
    super({ highWaterMark: 64 * 1024 });
    this.#options = options;
    this.#windowBytes = options.windowBytes ?? WINDOW_BYTES;
  }

  /** Data of the other end. @throws VmmError ERR_EMBEDDED_HOST when it sends more than it was granted. */
  deliver(payload: Uint8Array): void {
    if (payload.length > this.#outstandingBytes) {
      throw new VmmError('ERR_EMBEDDED_HOST', 'the other end of a stream sent more than it may');
    }
    this.#outstandingBytes -= payload.length;
    if (this.#ended || this.destroyed) {
      this.#consume(payload.length);
      return;
    }
    this.#queue.push(payload);
    this.#flush();
  }

  /** The other end has ended the stream. */
  deliverEnd(): void {
    this.#ended = true;
    this.#flush();
  }

  override _read(): void {
    this.#wanted = true;
    if (!this.#opened) {
      this.#opened = true;
      this.#grant(this.#windowBytes);
    }
    this.#flush();
  }

  #flush(): void {
    while (this.#wanted && this.#queue.length > 0) {
      const payload = this.#queue.shift() as Uint8Array;
      // _read may be called from within push, and must not be forgotten then.
      this.#wanted = false;
      if (this.push(payload)) this.#wanted = true;
      this.#consume(payload.length);
    }
    if (this.#ended && this.#queue.length === 0 && !this.readableEnded) this.push(null);
  }

  /** Credit goes back in quarters of the window: few frames, and the sender never runs dry. */
  #consume(bytes: number): void {
    this.#consumedBytes += bytes;
    if (this.#consumedBytes < this.#windowBytes / 4) return;
    this.#grant(this.#consumedBytes);
    this.#consumedBytes = 0;
  }

  #grant(bytes: number): void {
    this.#outstandingBytes += bytes;
    this.#options.send(creditFrame(this.#options.session, this.#options.stream, bytes));
  }
}

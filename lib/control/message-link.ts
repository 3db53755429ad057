/**
 * Messages both ways over a channel of the embedded host's session: a line of JSON each, of a bounded length. Either end may be gone at
 * any time, or be out of step: what is no message is the end of the link, of which the other end is told, and so is the end of the channel.
 */
import type { Channel } from '../base/command-io.js';

/** The forwards of a passt are the longest that there is. */
export const MAX_MESSAGE_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

export interface MessageHandlers {
  /** A value of JSON. What it throws ends the link. */
  onMessage(message: unknown): void;
  /** Called once. */
  onEnd(): void;
  /** Whether it reads no more while what it has sent is not taken. One end of a link alone may: both would wait for each other. */
  readonly holdsBack?: boolean;
}

export class MessageLink {
  readonly #channel: Channel;
  readonly #handlers: MessageHandlers;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #isOver = false;
  #isFull = false;

  constructor(channel: Channel, handlers: MessageHandlers) {
    this.#channel = channel;
    this.#handlers = handlers;
    const { input, output } = channel;
    const end = (): void => this.end();
    for (const stream of [input, output]) stream.on('error', end);
    for (const name of ['end', 'close']) input.on(name, end);
    input.on('data', (chunk: Uint8Array) => {
      try {
        this.#take(chunk);
      } catch {
        this.end();
      }
    });
    // It went before anybody listened.
    if (input.destroyed) queueMicrotask(end);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Nothing happens on a link that is over. @throws RangeError for a message that is too long */
  send(message: unknown): void {
    const line = Buffer.from(`${JSON.stringify(message)}\n`);
    if (line.length > MAX_MESSAGE_BYTES) throw new RangeError(`a message of ${line.length} bytes is too long`);
    if (this.#isOver || this.#channel.output.write(line) || this.#isFull || this.#handlers.holdsBack !== true) return;
    this.#isFull = true;
    this.#channel.input.pause();
    this.#channel.output.once('drain', () => {
      this.#isFull = false;
      if (!this.#isOver) this.#channel.input.resume();
    });
  }

  /** Idempotent. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#pieces = [];
    this.#channel.input.destroy();
    this.#channel.output.end();
    this.#handlers.onEnd();
  }

  #take(chunk: Uint8Array): void {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0 && !this.#isOver; at = chunk.indexOf(NEWLINE, from)) {
      this.#keep(chunk.subarray(from, at));
      const line = Buffer.concat(this.#pieces);
      [this.#pieces, this.#bytes, from] = [[], 0, at + 1];
      this.#handlers.onMessage(JSON.parse(line.toString()));
    }
    if (from < chunk.length) this.#keep(chunk.subarray(from));
  }

  #keep(piece: Uint8Array): void {
    this.#bytes += piece.length;
    if (this.#bytes > MAX_MESSAGE_BYTES) throw new RangeError('a message that has no end');
    this.#pieces.push(piece);
  }
}

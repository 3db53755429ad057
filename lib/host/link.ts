/**
 * A link: frames both ways over one connected stream (a unix socket, or the two halves of a virtio-serial port).
 * It encodes, decodes and reports the end; who talks to whom is the business of its users.
 * It never stops reading: what may be under way is bounded by the credit of the streams (streams.ts).
 */
import type { Readable, Writable } from 'node:stream';
import { VmmError } from '../base/errors.js';
import { FrameDecoder, frameHeader, type Frame } from './frames.js';
import { messageFrame, type Message } from './messages.js';

export interface LinkHandlers {
  onFrame(frame: Frame): void;
  /** Called once: the link has ended, orderly (undefined) or by an error. */
  onEnd(error: Error | undefined): void;
}

export class Link {
  readonly #input: Readable;
  readonly #output: Writable;
  readonly #handlers: LinkHandlers;
  #ended = false;

  constructor(input: Readable, output: Writable, handlers: LinkHandlers) {
    this.#input = input;
    this.#output = output;
    this.#handlers = handlers;
    const decoder = new FrameDecoder();
    input.on('data', (chunk: Uint8Array) => {
      if (this.#ended) return;
      try {
        for (const frame of decoder.push(chunk)) handlers.onFrame(frame);
      } catch (error) {
        this.#end(error as Error);
      }
    });
    input.on('end', () => {
      const cut = new VmmError('ERR_EMBEDDED_HOST', 'the link to the embedded host ended in the middle of a frame');
      this.#end(decoder.empty ? undefined : cut);
    });
    input.on('error', (error) => this.#end(error));
    input.on('close', () => this.#end(undefined));
    if ((output as unknown) !== input) output.on('error', (error) => this.#end(error));
  }

  get ended(): boolean {
    return this.#ended;
  }

  send(frame: Frame): void {
    if (this.#ended) return;
    this.#output.cork();
    this.#output.write(frameHeader(frame));
    if (frame.payload.length > 0) this.#output.write(frame.payload);
    this.#output.uncork();
  }

  sendMessage(session: number, message: Message): void {
    this.send(messageFrame(session, message));
  }

  /** Sends what is written and then closes. */
  close(): void {
    this.#output.end();
  }

  destroy(): void {
    this.#end(undefined);
  }

  #end(error: Error | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#input.destroy();
    if ((this.#output as unknown) !== this.#input) this.#output.destroy();
    this.#handlers.onEnd(error);
  }
}

/**
 * Connections to the control socket of a machine in the embedded host: the process outside listens, and each connection goes over one
 * channel of the session, in the frames of the host's own links, with a window for each. The process inside has the server.
 * A number that was not seen before opens a connection; `hangup` says that an end of one has gone.
 */
import { Duplex } from 'node:stream';
import type { Channel } from '../base/command-io.js';
import { creditOf, FRAME_CREDIT, FRAME_DATA, FRAME_END, STDIN, type Frame } from '../host/frames.js';
import { Link } from '../host/link.js';
import { FrameReadable, FrameWritable } from '../host/streams.js';

/** A slow viewer's share of the channel; what is more waits, or is lost, at the server. */
const WINDOW_BYTES = 64 * 1024;
/** More than a client sends to somebody who has gone. */
const ALL_BYTES = 2 ** 40;

/** The outer end. */
export interface Carrier {
  /** Carries a connection from now on. */
  carry(socket: Duplex): void;
}

/** Takes the outer end of a channel. When the channel goes all connections do. */
export function carryConnections(channel: Channel): Carrier {
  const ends = new CarriedEnds(channel);
  let last = 0;
  return {
    carry(socket) {
      const stream = ends.open(++last);
      stream.pipe(socket);
      socket.pipe(stream);
      socket.on('error', () => stream.destroy());
      socket.once('close', () => {
        if (!stream.writableFinished || !stream.readableEnded) stream.destroy();
      });
      stream.once('close', () => {
        if (!stream.readableEnded) socket.destroy();
      });
    },
  };
}

/** Takes the inner end of a channel: each connection of the other end is handed to `accept`. */
export function takeCarried(channel: Channel, accept: (stream: Duplex) => void): void {
  new CarriedEnds(channel, accept);
}

interface End {
  readonly input: FrameReadable;
  readonly output: FrameWritable;
  readonly stream: Duplex;
  /** The other end sends no more. */
  ended: boolean;
}

class CarriedEnds {
  readonly #link: Link;
  readonly #accept: ((stream: Duplex) => void) | undefined;
  readonly #ends = new Map<number, End>();
  #last = 0;

  constructor({ input, output }: Channel, accept?: (stream: Duplex) => void) {
    this.#accept = accept;
    this.#link = new Link(input, output, {
      onFrame: (frame) => this.#onFrame(frame),
      onEnd: () => {
        for (const end of this.#ends.values()) this.#hungUp(end);
      },
    });
  }

  open(session: number): Duplex {
    const send = (frame: Frame): void => this.#link.send(frame);
    const options = { session, stream: STDIN, send, windowBytes: WINDOW_BYTES };
    const [input, output] = [new FrameReadable(options), new FrameWritable(options)];
    const stream = Duplex.from({ readable: input, writable: output });
    stream.on('error', () => undefined);
    stream.once('close', () => {
      this.#ends.delete(session);
      if (!stream.readableEnded || !stream.writableFinished) this.#link.sendMessage(session, { type: 'hangup' });
    });
    this.#ends.set(session, { input, output, stream, ended: false });
    if (this.#link.ended) stream.destroy();
    return stream;
  }

  #onFrame(frame: Frame): void {
    const { session } = frame;
    let end = this.#ends.get(session);
    if (end === undefined) {
      // Of one that has gone, or the first of one that comes.
      if (this.#accept === undefined || session <= this.#last) return;
      this.#last = session;
      if (frame.type !== FRAME_DATA && frame.type !== FRAME_CREDIT && frame.type !== FRAME_END) return;
      const stream = this.open(session);
      end = this.#ends.get(session);
      this.#accept(stream);
      if (end === undefined) return;
    }
    if (frame.type === FRAME_DATA) end.input.deliver(frame.payload);
    else if (frame.type === FRAME_CREDIT) end.output.grant(creditOf(frame));
    else if (frame.type === FRAME_END) {
      end.ended = true;
      end.input.deliverEnd();
    } else this.#hungUp(end);
  }

  #hungUp(end: End): void {
    // What it has said in whole is still read; what is said to it is heard by nobody.
    if (end.ended) end.output.grant(ALL_BYTES);
    else end.stream.destroy();
  }
}

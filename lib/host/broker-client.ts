/**
 * One connection of a client, as the broker sees it: messages to the broker apart from frames of its session.
 * Renumbers nothing but the session; data passes through untouched.
 */
import type { Duplex } from 'node:stream';
import type { VmmError } from '../base/errors.js';
import { FRAME_MESSAGE, type Frame } from './frames.js';
import { Link } from './link.js';
import { failureOf, messageOf, ONLY_SESSION, type Failure, type Message } from './messages.js';

export interface BrokerClientHandlers {
  onMessage(message: Message): void;
  /** A frame of the session that is no message. */
  onFrame(frame: Frame): void;
  /** The client has gone, whatever the reason. */
  onGone(): void;
}

export class BrokerClient {
  /** The broker's number for this client's session, once it has one. */
  session: number | undefined;
  readonly #link: Link;

  constructor(stream: Duplex, handlers: BrokerClientHandlers) {
    this.#link = new Link(stream, stream, {
      onFrame: (frame) => {
        if (frame.type === FRAME_MESSAGE) handlers.onMessage(messageOf(frame));
        else handlers.onFrame(frame);
      },
      onEnd: () => handlers.onGone(),
    });
  }

  send(message: Message): void {
    this.#link.sendMessage(ONLY_SESSION, message);
  }

  forward(frame: Frame): void {
    this.#link.send({ ...frame, session: ONLY_SESSION });
  }

  fail(error: VmmError): void {
    this.send({ type: 'failed', failure: failureOf(error) });
  }

  /** Says why, if there is a why, and closes. */
  end(failure: Failure | undefined): void {
    if (failure !== undefined) this.send({ type: 'failed', failure });
    this.#link.close();
  }
}

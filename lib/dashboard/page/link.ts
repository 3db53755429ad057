/**
 * The page's one WebSocket: messages both ways, consoles as binary frames, and a new connection when it is lost. It knows what is watched and
 * open, so that a new connection has all of it again; what it means is for others.
 */
import {
  CHANNEL_BYTES,
  type Ask,
  type Beat,
  type FailureText,
  type PageMessage,
  type ServerMessage,
} from './protocol.js';

export interface ConsoleEnd {
  show(bytes: Uint8Array): void;
  /** A new connection: all that was shown comes again. */
  restarted(): void;
  ended(failure: FailureText | undefined): void;
  full(lostBytes: number): void;
}

export interface LinkEvents {
  onState(connected: boolean): void;
  onMessage(message: ServerMessage): void;
}

/** From the first failed connection on; doubled each time. */
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 4000;
/** What is typed goes in pieces of at most this. */
const PIECE_BYTES = 16 * 1024;

export class Link {
  readonly #events: LinkEvents;
  readonly #watched = new Map<string, PageMessage>();
  readonly #consoles = new Map<number, { readonly name: string; readonly end: ConsoleEnd }>();
  readonly #asked = new Map<
    number,
    { readonly done: (failure: FailureText | undefined) => void; readonly progress: (text: string) => void }
  >();
  #socket: WebSocket | undefined;
  #retryMs = FIRST_RETRY_MS;
  #lastId = 0;

  constructor(events: LinkEvents) {
    this.#events = events;
    this.#connect();
  }

  watch(name: string, beat: Beat): void {
    const message: PageMessage = { type: 'watch', name, beat };
    this.#watched.set(`${beat} ${name}`, message);
    this.#send(message);
  }

  unwatch(name: string, beat: Beat): void {
    if (this.#watched.delete(`${beat} ${name}`)) this.#send({ type: 'unwatch', name, beat });
  }

  isWatched(name: string, beat: Beat): boolean {
    return this.#watched.has(`${beat} ${name}`);
  }

  /** The result leaves and types. */
  openConsole(name: string, end: ConsoleEnd): { type(bytes: Uint8Array): void; close(): void } {
    const channel = ++this.#lastId;
    this.#consoles.set(channel, { name, end });
    this.#send({ type: 'open-console', channel, name });
    return {
      type: (bytes) => {
        for (let at = 0; at < bytes.length; at += PIECE_BYTES)
          this.#type(channel, bytes.subarray(at, at + PIECE_BYTES));
      },
      close: () => {
        if (this.#consoles.delete(channel)) this.#send({ type: 'close-console', channel });
      },
    };
  }

  /** Resolves to why it failed, undefined when it is done. */
  ask(ask: Ask, progress: (text: string) => void = () => undefined): Promise<FailureText | undefined> {
    const id = ++this.#lastId;
    return new Promise((done) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return done(lost);
      this.#asked.set(id, { done, progress });
      this.#send({ type: 'ask', id, ask });
    });
  }

  #connect(): void {
    // The page's own URL has the token.
    const socket = new WebSocket(`ws://${location.host}/socket${location.search}`);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    socket.onopen = () => {
      this.#retryMs = FIRST_RETRY_MS;
      this.#events.onState(true);
      for (const message of this.#watched.values()) this.#send(message);
      for (const [channel, { name, end }] of this.#consoles) {
        end.restarted();
        this.#send({ type: 'open-console', channel, name });
      }
    };
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data === 'string') this.#take(data);
      else this.#show(data);
    };
    socket.onclose = () => {
      this.#events.onState(false);
      for (const { done } of this.#asked.values()) done(lost);
      this.#asked.clear();
      setTimeout(() => this.#connect(), this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, MAX_RETRY_MS);
    };
  }

  #take(text: string): void {
    let message: ServerMessage;
    try {
      message = JSON.parse(text) as ServerMessage;
    } catch {
      // A line of a machine that was cut: the next one is whole.
      return;
    }
    switch (message.type) {
      case 'answer':
        this.#asked.get(message.id)?.done(message.failure);
        this.#asked.delete(message.id);
        return;
      case 'progress':
        return this.#asked.get(message.id)?.progress(message.text);
      case 'console-ended': {
        const console = this.#consoles.get(message.channel);
        this.#consoles.delete(message.channel);
        return console?.end.ended(message.failure);
      }
      case 'console-full':
        return this.#consoles.get(message.channel)?.end.full(message.lostBytes);
      case 'watch-ended':
        this.#watched.delete(`${message.beat} ${message.name}`);
        return this.#events.onMessage(message);
      default:
        return this.#events.onMessage(message);
    }
  }

  #show(frame: ArrayBuffer): void {
    const channel = new DataView(frame).getUint32(0);
    this.#consoles.get(channel)?.end.show(new Uint8Array(frame, CHANNEL_BYTES));
  }

  #type(channel: number, bytes: Uint8Array): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const frame = new Uint8Array(CHANNEL_BYTES + bytes.length);
    new DataView(frame.buffer).setUint32(0, channel);
    frame.set(bytes, CHANNEL_BYTES);
    this.#socket.send(frame);
  }

  #send(message: PageMessage): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}

const lost: FailureText = { code: 'ERR_CONTROL', message: 'there is no connection to the dashboard' };

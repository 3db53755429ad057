/**
 * One page's end here: its messages are checked and done, what it looks at is sent to it. What waits for a slow browser is bounded: beats are
 * left out, consoles stand, and who takes nothing at all is cut off. It knows a socket as an interface, and nothing of HTTP.
 */
import type { ListedMachine } from '../control/index.js';
import { failureOf } from '../control/failures.js';
import { ConsoleLink } from './console-link.js';
import { readMessage } from './messages.js';
import { CHANNEL_BYTES, type Ask, type Beat, type PageMessage, type ServerMessage } from './page/protocol.js';
import type { Polled } from './polled.js';
import { reach } from './reach.js';
import { noShelf, type SnapshotShelf } from './snapshot-shelf.js';
import type { StatsWatches } from './stats-watches.js';
import type { DashboardWorld } from './world.js';

/** The part of a WebSocket that a session uses. */
export interface PageSocket {
  /** Bytes that were sent and have not gone out. */
  readonly bufferedAmount: number;
  send(data: Buffer | string, options: { binary: boolean }, onGone?: (error?: Error) => void): void;
  close(code: number, reason: string): void;
  terminate(): void;
}

/** What all pages of a dashboard share. */
export interface SessionContext {
  readonly world: DashboardWorld;
  readonly watches: StatsWatches;
  readonly machines: Polled<readonly ListedMachine[]>;
  readonly shelf: SnapshotShelf | undefined;
  /** The end of the dashboard, which gives up what it does. */
  readonly signal: AbortSignal;
}

/** With so much waiting no more of what comes again anyhow, and of consoles, is sent. */
export const BUSY_BYTES = 256 * 1024;
/** With so much waiting nobody reads any more. */
const DEAD_BYTES = 16 * 1024 * 1024;
const MAX_CONSOLES = 32;
const MAX_WATCHES = 1024;
const MAX_ASKS = 64;
/** Status codes of a WebSocket's end (RFC 6455, 7.4.1). */
const POLICY_VIOLATION = 1008;

export class PageSession {
  readonly #socket: PageSocket;
  readonly #context: SessionContext;
  readonly #watched = new Map<string, () => void>();
  readonly #consoles = new Map<number, ConsoleLink>();
  readonly #leave: (() => void)[] = [];
  #asks = 0;
  #isOver = false;

  constructor(socket: PageSocket, context: SessionContext) {
    this.#socket = socket;
    this.#context = context;
    const { shelf, machines } = context;
    this.#send({ type: 'hello', snapshots: shelf?.folder ?? null });
    this.#leave.push(machines.listen((list) => this.#send({ type: 'machines', machines: list })));
    if (shelf !== undefined) this.#leave.push(shelf.contents.listen((message) => this.#send(message)));
  }

  takeText(text: string): void {
    const message = readMessage(text);
    if (message === undefined) return this.#socket.close(POLICY_VIOLATION, 'no message of a dashboard');
    this.#act(message);
  }

  /** Of a console: its number and what is typed. */
  takeBinary(frame: Buffer): void {
    if (frame.length < CHANNEL_BYTES) return this.#socket.close(POLICY_VIOLATION, 'no frame of a console');
    // One that has ended meanwhile takes nothing.
    this.#consoles.get(frame.readUInt32BE(0))?.type(frame.subarray(CHANNEL_BYTES));
  }

  /** The page has gone. Idempotent. */
  end(): void {
    this.#isOver = true;
    for (const leave of this.#leave.splice(0)) leave();
    for (const leave of this.#watched.values()) leave();
    for (const console of this.#consoles.values()) console.close();
    this.#watched.clear();
    this.#consoles.clear();
  }

  #act(message: PageMessage): void {
    switch (message.type) {
      case 'watch':
        return this.#watch(message.name, message.beat);
      case 'unwatch': {
        const key = `${message.beat} ${message.name}`;
        this.#watched.get(key)?.();
        this.#watched.delete(key);
        return;
      }
      case 'open-console':
        return this.#openConsole(message.channel, message.name);
      case 'close-console':
        this.#consoles.get(message.channel)?.close();
        this.#consoles.delete(message.channel);
        return;
      case 'ask':
        return void this.#answer(message.id, message.ask);
    }
  }

  #watch(name: string, beat: Beat): void {
    const key = `${beat} ${name}`;
    if (this.#watched.has(key)) return;
    if (this.#watched.size >= MAX_WATCHES) return this.#socket.close(POLICY_VIOLATION, 'too many watches');
    const leave = this.#context.watches.join(name, beat, {
      take: (line) => {
        if (this.#socket.bufferedAmount < BUSY_BYTES) this.#socket.send(line, { binary: false });
      },
      ended: (failure) => {
        this.#watched.delete(key);
        this.#send({ type: 'watch-ended', name, beat, ...(failure && { failure }) });
        this.#context.machines.refresh();
      },
    });
    this.#watched.set(key, leave);
  }

  #openConsole(channel: number, name: string): void {
    if (this.#consoles.has(channel) || this.#consoles.size >= MAX_CONSOLES) {
      return this.#socket.close(POLICY_VIOLATION, 'no such console can be opened');
    }
    const header = Buffer.alloc(CHANNEL_BYTES);
    header.writeUInt32BE(channel);
    const link = new ConsoleLink({
      show: (bytes, onReady) => {
        this.#socket.send(Buffer.concat([header, bytes]), { binary: true }, onReady);
        return this.#socket.bufferedAmount < BUSY_BYTES;
      },
      lost: (lostBytes) => this.#send({ type: 'console-full', channel, lostBytes }),
      ended: (failure) => {
        this.#consoles.delete(channel);
        this.#send({ type: 'console-ended', channel, ...(failure && { failure }) });
      },
    });
    this.#consoles.set(channel, link);
    void link.run(name, this.#context.world);
  }

  async #answer(id: number, ask: Ask): Promise<void> {
    if (this.#asks >= MAX_ASKS) return this.#socket.close(POLICY_VIOLATION, 'too much asked at once');
    this.#asks++;
    try {
      await this.#do(ask, (text) => this.#send({ type: 'progress', id, text }));
      this.#send({ type: 'answer', id });
    } catch (error) {
      this.#send({ type: 'answer', id, failure: failureOf(error) });
    } finally {
      this.#asks--;
      this.#context.machines.refresh();
    }
  }

  async #do(ask: Ask, onProgress: (text: string) => void): Promise<void> {
    const { world, shelf, signal } = this.#context;
    if (ask.what === 'save' || ask.what === 'restore' || ask.what === 'delete') {
      if (shelf === undefined) throw noShelf();
      return shelf.act(ask, { signal, onProgress });
    }
    const machine = await reach(ask.name, world, signal);
    await machine[ask.what]({ signal });
  }

  #send(message: ServerMessage): void {
    if (this.#isOver) return;
    if (this.#socket.bufferedAmount > DEAD_BYTES) return this.#socket.terminate();
    this.#socket.send(JSON.stringify(message), { binary: false });
  }
}

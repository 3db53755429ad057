/**
 * For tests: an embedded machine without QEMU. Its inner end of the port is a Link in the hands of the test, which
 * plays the inner daemon.
 */
import { Duplex } from 'node:stream';
import type { EmbeddedMachine } from './embedded-machine.js';
import type { Frame } from './frames.js';
import { Link } from './link.js';
import { messageOf, type Message } from './messages.js';

/** Two streams, each of which reads what is written to the other. */
export function duplexPair(): [Duplex, Duplex] {
  const ends: Duplex[] = [];
  const make = (other: number): Duplex =>
    new Duplex({
      allowHalfOpen: false,
      read: () => undefined,
      write: (chunk: Uint8Array, _encoding, callback) => {
        ends[other]?.push(chunk);
        callback();
      },
      final: (callback) => {
        ends[other]?.push(null);
        callback();
      },
      destroy: (error, callback) => {
        const end = ends[other];
        if (end?.destroyed === false && !end.readableEnded) queueMicrotask(() => end.push(null));
        callback(error);
      },
    });
  ends.push(make(1), make(0));
  return ends as [Duplex, Duplex];
}

export class FakeMachine implements EmbeddedMachine {
  readonly pid = 4711;
  readonly port: Duplex;
  readonly ended: Promise<string>;
  /** What the broker said to the inner daemon. */
  readonly heard: Frame[] = [];
  readonly inner: Link;
  killed = false;
  #end: (how: string) => void = () => undefined;

  constructor() {
    const [outer, inner] = duplexPair();
    this.port = outer;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    this.inner = new Link(inner, inner, { onFrame: (frame) => this.heard.push(frame), onEnd: () => undefined });
  }

  consoleTail(): string {
    return 'Kernel panic - not syncing: a test';
  }

  kill(): void {
    this.killed = true;
    this.#end('QEMU was ended by SIGKILL');
  }

  /** As when QEMU goes by itself. */
  die(how: string): void {
    this.#end(how);
  }

  /** The messages heard so far, with their sessions. */
  messages(): (Message & { session: number })[] {
    return this.heard
      .filter(({ type }) => type === 1)
      .map((frame) => ({ ...messageOf(frame), session: frame.session }));
  }
}

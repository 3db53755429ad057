/**
 * One machine's console on one page. What the machine shows is taken only as fast as the browser does: who is slow loses the oldest in the
 * machine's own process, and the guest is never held. What is typed waits, bounded, for a guest that does not take it.
 */
import type { Writable } from 'node:stream';
import { failureOf } from '../control/failures.js';
import type { FailureText } from './page/protocol.js';
import type { DashboardWorld } from './world.js';

/** Where the console is shown. */
export interface ConsoleViewer {
  /** False when it is to be given no more until `onReady` is called. */
  show(bytes: Buffer, onReady: () => void): boolean;
  /** So much of what was typed could not be kept. */
  lost(bytes: number): void;
  ended(failure: FailureText | undefined): void;
}

/** Of what was shown before, so much comes first. */
const SCROLLBACK_BYTES = 256 * 1024;
const MAX_TYPED_BYTES = 256 * 1024;

export class ConsoleLink {
  readonly #stop = new AbortController();
  readonly #viewer: ConsoleViewer;
  #input: Writable | undefined;
  /** Typed before the console was open. */
  #early: Buffer[] = [];
  /** Ends the wait for the browser. */
  #goOn: () => void = () => undefined;

  constructor(viewer: ConsoleViewer) {
    this.#viewer = viewer;
  }

  /** Until either end leaves. Never rejects. */
  async run(name: string, world: Pick<DashboardWorld, 'connect'>): Promise<void> {
    const { signal } = this.#stop;
    let failure: FailureText | undefined;
    try {
      const machine = await world.connect(name, signal);
      const { input, output, close } = await machine.attach({ scrollbackBytes: SCROLLBACK_BYTES, signal });
      this.#input = input;
      // The end of the output tells of it.
      input.on('error', () => undefined);
      for (const bytes of this.#early.splice(0)) this.type(bytes);
      try {
        for await (const bytes of output as AsyncIterable<Buffer>) {
          await new Promise<void>((resolve) => {
            this.#goOn = resolve;
            if (this.#viewer.show(bytes, resolve)) resolve();
          });
        }
      } finally {
        close();
      }
    } catch (error) {
      failure = failureOf(error);
    }
    this.#input = undefined;
    if (!signal.aborted) this.#viewer.ended(failure);
  }

  type(bytes: Buffer): void {
    const waiting = this.#input?.writableLength ?? this.#early.reduce((sum, { length }) => sum + length, 0);
    if (waiting + bytes.length > MAX_TYPED_BYTES) return this.#viewer.lost(bytes.length);
    if (this.#input === undefined) this.#early.push(bytes);
    else this.#input.write(bytes);
  }

  close(): void {
    this.#stop.abort();
    this.#goOn();
  }
}

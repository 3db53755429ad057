/**
 * The console of a machine, as programs use it: bytes in, bytes out, and waiting for a text. It stands between the
 * first serial port and any number of readers; each reader sees everything from the history's start on.
 * A reader that does not keep up holds the guest's console, not the host's memory: see `holding`.
 */
import { AbortError, VmmError } from '../base/errors.js';
import { checkOptionNames } from '../base/options.js';
import { ByteBacklog } from './byte-backlog.js';

/** What is kept for readers that come later. */
const HISTORY_BYTES = 1024 * 1024;
/** How far back a text may begin that `waitFor` finds across chunks. */
const WATCH_WINDOW = 8 * 1024;
/** A reader with more than this waiting holds the guest. */
const READER_HIGH_WATER_BYTES = 1024 * 1024;

interface Reader {
  readonly waiting: ByteBacklog;
  wake: (() => void) | undefined;
}

export interface WaitForOptions {
  /** Default 30 000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export class MachineConsole {
  readonly #input: (bytes: Uint8Array) => boolean;
  #drainWaiters: (() => void)[] = [];
  #full = false;
  readonly #onHolding: (holding: boolean) => void;
  readonly #readers = new Set<Reader>();
  readonly #watchers = new Set<(added: string) => void>();
  readonly #decoder = new TextDecoder();
  readonly #history = new ByteBacklog();
  #ended = false;
  #holding = false;

  /** `input` takes what is written for the guest, and answers false when it has enough for now; `onHolding` is told when readers fall behind, and when they are back. */
  constructor(input: (bytes: Uint8Array) => boolean, onHolding: (holding: boolean) => void = () => undefined) {
    this.#input = input;
    this.#onHolding = onHolding;
  }

  /**
   * Types at the console. Text is sent as UTF-8. False says that much is waiting for the guest: the data was taken, but
   * the caller should go on only after `drained()`.
   */
  write(data: Uint8Array | string): boolean {
    if (this.#ended) return true;
    this.#full = !this.#input(typeof data === 'string' ? new TextEncoder().encode(data) : data);
    return !this.#full;
  }

  /** Resolves when the guest has taken most of what was written, or the machine has ended. */
  drained(): Promise<void> {
    if (!this.#full || this.#ended) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** From the serial port: it takes input again. */
  inputDrained(): void {
    this.#full = false;
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const resolve of waiters) resolve();
  }

  /** The guest's output from the start (at most the last MiB of what came before), ending with the machine. */
  get output(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this.#read() };
  }

  /** The output kept so far as text. */
  get text(): string {
    return new TextDecoder().decode(Buffer.concat(this.#history.pieces()));
  }

  /**
   * Waits until the output kept so far, or to come, matches.
   *
   * @throws VmmError ERR_TIMEOUT, with the output's last lines in the message; ERR_STATE when the machine ended first; AbortError.
   * @example await vm.console.waitFor(/login:/, { timeoutMs: 60_000 })
   */
  async waitFor(pattern: RegExp, options: WaitForOptions = {}): Promise<RegExpExecArray> {
    checkOptionNames('waitFor', options, ['timeoutMs', 'signal']);
    const { timeoutMs = 30_000, signal } = options;
    const search = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        signal?.removeEventListener('abort', abort);
      };
      const abort = (): void => {
        finish();
        reject(new AbortError(signal));
      };
      let window = this.text;
      const look = (added: string): void => {
        window += added;
        const match = search.exec(window);
        window = window.slice(-WATCH_WINDOW);
        if (match) {
          finish();
          resolve(match);
        } else if (this.#ended) {
          finish();
          reject(
            new VmmError('ERR_STATE', `the machine ended before its console showed ${pattern}: ${this.#lastLines()}`),
          );
        }
      };
      const timer = setTimeout(() => {
        finish();
        reject(new VmmError('ERR_TIMEOUT', `no ${pattern} on the console in ${timeoutMs} ms: ${this.#lastLines()}`));
      }, timeoutMs);
      signal?.addEventListener('abort', abort, { once: true });
      this.#watchers.add(look);
      if (signal?.aborted) abort();
      else look('');
    });
  }

  /** From the serial port. The array is kept. */
  receive(bytes: Uint8Array): void {
    this.#history.append(bytes);
    if (this.#history.lengthBytes > 2 * HISTORY_BYTES) this.#history.keepLast(HISTORY_BYTES);
    for (const reader of this.#readers) {
      reader.waiting.append(bytes);
      reader.wake?.();
    }
    const added = this.#decoder.decode(bytes, { stream: true });
    for (const look of [...this.#watchers]) look(added);
    this.#updateHolding();
  }

  /** The machine has ended: readers end after what is left, waiters fail. */
  end(): void {
    this.#ended = true;
    this.inputDrained();
    for (const reader of this.#readers) reader.wake?.();
    for (const look of [...this.#watchers]) look('');
  }

  async *#read(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader: Reader = { waiting: new ByteBacklog(), wake: undefined };
    for (const piece of this.#history.pieces()) reader.waiting.append(piece);
    this.#readers.add(reader);
    try {
      for (;;) {
        const chunks = reader.waiting.take();
        this.#updateHolding();
        yield* chunks;
        if (reader.waiting.lengthBytes > 0) continue;
        if (this.#ended) return;
        await new Promise<void>((resolve) => (reader.wake = resolve));
        reader.wake = undefined;
      }
    } finally {
      this.#readers.delete(reader);
      this.#updateHolding();
    }
  }

  #updateHolding(): void {
    const holding = [...this.#readers].some((reader) => reader.waiting.lengthBytes > READER_HIGH_WATER_BYTES);
    if (holding === this.#holding) return;
    this.#holding = holding;
    this.#onHolding(holding);
  }

  #lastLines(): string {
    return JSON.stringify(this.text.split('\n').slice(-8).join('\n').slice(-800));
  }
}

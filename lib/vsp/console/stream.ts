/**
 * HAL: a console port on streams of this process, on callbacks, or on the command's own terminal. Backpressure goes
 * both ways: a writable that is full holds the guest, a guest that takes nothing pauses the readable.
 */
import type { Readable, Writable } from 'node:stream';
import { hostClock, type Clock } from '../../base/clock.js';
import type { CommandIo } from '../../base/command-io.js';
import { VmmError } from '../../base/errors.js';
import { checkOptionNames } from '../../base/options.js';
import type { BackendDescription } from '../contract.js';
import { waitFor } from '../deadline.js';
import {
  CONSOLE_PATIENCE_NS,
  type ConsoleBackend,
  type ConsoleHostEnd,
  type ConsoleSize,
  type ConsoleSource,
} from './contract.js';

/** Writes a copy; resolves when the stream takes more, or can't any more, or on `left`. Undefined: it takes more at once. */
export function writeTo(stream: Writable, bytes: Uint8Array, left?: AbortSignal): Promise<void> | undefined {
  if (stream.destroyed || stream.writableEnded) return undefined;
  if (stream.write(bytes.slice())) return undefined;
  return new Promise((resolve) => {
    const end = (): void => {
      stream.off('drain', end).off('close', end).off('error', end);
      left?.removeEventListener('abort', end);
      resolve();
    };
    stream.on('drain', end).on('close', end).on('error', end);
    left?.addEventListener('abort', end);
  });
}

export interface StreamConsoleOptions {
  /** What the guest is to read. */
  readonly readable?: Readable;
  /** Where the guest's output goes. */
  readonly writable?: Writable;
  /** End the writable and destroy the readable when the port is closed. Default true. */
  readonly end?: boolean;
  /** By which a close waits for a writable that nobody reads; a parameter for tests. */
  readonly clock?: Clock;
}

/** A port on two streams, or twice the same Duplex. They serve one port at a time. */
export function streamConsole(options: StreamConsoleOptions): ConsoleSource {
  checkOptionNames('streamConsole', options, ['readable', 'writable', 'end', 'clock']);
  return streamSource({ kind: 'stream' }, (description) => new StreamBackend(options, description));
}

/** The streams behind `stdioConsole`. */
export type StdioStreams = Pick<CommandIo, 'stdin' | 'stdout' | 'terminalSize' | 'onResize'>;

/** A port on the terminal or streams of this process, or of the command; raw mode is the caller's business. */
export function stdioConsole(io: StdioStreams = processStreams()): ConsoleSource {
  const streams = { readable: io.stdin, writable: io.stdout, end: false };
  return streamSource({ kind: 'stdio' }, (description) => new StreamBackend(streams, description, io));
}

function processStreams(): StdioStreams {
  const { stdin, stdout } = process;
  return {
    stdin,
    stdout,
    terminalSize: () => (stdout.isTTY ? { columns: stdout.columns, rows: stdout.rows } : undefined),
    onResize: (callback) => {
      stdout.on('resize', callback);
      return () => void stdout.off('resize', callback);
    },
  };
}

/** Streams can't be had twice: bytes of one guest would end up at another. */
function streamSource(
  description: BackendDescription,
  make: (description: BackendDescription) => StreamBackend,
): ConsoleSource {
  let last: StreamBackend | undefined;
  return {
    class: 'console',
    describe: () => description,
    open: () => {
      if (last !== undefined && !last.isReusable) throw inUse(description.kind);
      return (last = make(description));
    },
  };
}

function inUse(kind: string): VmmError {
  return new VmmError('ERR_STATE', `the ${kind} console was opened before`, { cure: 'give each port one of its own' });
}

/** A port on functions: `output` gets each piece (valid during the call) and may answer when it takes more. */
export function callbackConsole(output: (bytes: Uint8Array) => Promise<void> | undefined): CallbackConsole {
  return new CallbackConsole(output);
}

export class CallbackConsole implements ConsoleSource, ConsoleBackend {
  readonly class = 'console';
  readonly #output: (bytes: Uint8Array) => Promise<void> | undefined;
  #host: ConsoleHostEnd | undefined;
  #waiters: (() => void)[] = [];
  #paused = false;
  #isOpen = false;

  constructor(output: (bytes: Uint8Array) => Promise<void> | undefined) {
    this.#output = output;
  }

  /** Bytes for the guest; resolves when more may come. */
  input(bytes: Uint8Array): Promise<void> {
    this.#host?.input(bytes);
    return this.#paused ? new Promise((resolve) => this.#waiters.push(resolve)) : Promise.resolve();
  }

  /** @throws VmmError ERR_STATE while a port has it. */
  open(): ConsoleBackend {
    if (this.#isOpen) throw inUse('callbacks');
    this.#isOpen = true;
    return this;
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    return this.#output(bytes)?.catch(() => {});
  }

  start(host: ConsoleHostEnd): void {
    this.#host = host;
    host.open(true);
  }

  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (!paused) for (const resolve of this.#waiters.splice(0)) resolve();
  }

  describe(): BackendDescription {
    return { kind: 'callbacks' };
  }

  close(): Promise<void> {
    this.setPaused(false);
    this.#host = undefined;
    this.#isOpen = false;
    return Promise.resolve();
  }
}

const ignore = (): void => {};

/** What is on its way in a stream that is left may fail when nobody listens, and must not end the process. */
function ignoreLateErrors(writable: Writable): void {
  if (writable.writableLength > 0 && !writable.listeners('error').includes(ignore)) writable.on('error', ignore);
}

export class StreamBackend implements ConsoleBackend {
  readonly #options: StreamConsoleOptions;
  readonly #description: BackendDescription;
  readonly #terminal: StdioStreams | undefined;
  #isClosed = false;
  #host: ConsoleHostEnd | undefined;
  #closing: (() => void)[] = [];
  /** Aborted when the streams are left as they are. */
  readonly #left = new AbortController();

  constructor(options: StreamConsoleOptions, description: BackendDescription, terminal?: StdioStreams) {
    this.#options = options;
    this.#description = description;
    this.#terminal = terminal;
  }

  /** Its port is closed, and its streams were left open. */
  get isReusable(): boolean {
    return this.#isClosed && this.#options.end === false;
  }

  get size(): ConsoleSize | undefined {
    return this.#terminal?.terminalSize();
  }

  start(host: ConsoleHostEnd): void {
    const { readable, writable } = this.#options;
    this.#host = host;
    const onData = (bytes: Uint8Array): void => host.input(bytes);
    const onEnd = (): void => host.open(false);
    // A broken stream is an end, not a failure of the machine; it is listened to until the stream is gone or left.
    readable?.on('error', onEnd);
    writable?.on('error', onEnd);
    this.#left.signal.addEventListener('abort', () => {
      readable?.off('error', onEnd);
      writable?.off('error', onEnd);
    });
    readable?.on('data', onData).on('end', onEnd);
    writable?.on('close', onEnd);
    this.#closing.push(() => {
      readable?.off('data', onData).off('end', onEnd).pause();
      writable?.off('close', onEnd);
    });
    if (this.#terminal) {
      const terminal = this.#terminal;
      this.#closing.push(
        terminal.onResize(() => {
          const size = terminal.terminalSize();
          if (size) host.resize(size);
        }),
      );
    }
    host.open(true);
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    return this.#options.writable && writeTo(this.#options.writable, bytes, this.#left.signal);
  }

  setPaused(paused: boolean): void {
    if (paused) this.#options.readable?.pause();
    else if (this.#host) this.#options.readable?.resume();
  }

  describe(): BackendDescription {
    return this.#description;
  }

  async close(): Promise<void> {
    const { readable, writable, end = true, clock = hostClock } = this.#options;
    this.#host = undefined;
    this.#isClosed = true;
    for (const undo of this.#closing.splice(0)) undo();
    if (!end) {
      if (writable !== undefined) ignoreLateErrors(writable);
      this.#left.abort();
      return;
    }
    readable?.removeAllListeners('data');
    if (writable && !writable.destroyed && !writable.writableFinished) {
      const ended = new Promise<void>((resolve) => {
        writable.once('close', resolve).once('error', () => resolve());
        writable.end(() => resolve());
      });
      const limits = { clock, maxNs: CONSOLE_PATIENCE_NS, what: 'a stream' };
      // Nobody reads: what is left is lost.
      await waitFor(ended, limits).catch(() => writable.destroy());
    }
    readable?.destroy();
  }
}

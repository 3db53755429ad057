/**
 * One command in the guest as the host sees it: feeds its stdin within the window that the agent granted, writes its
 * output to the given streams and grants more as they take it, and ends with the child's status when every byte of
 * output was taken. It knows frames and streams only; client.ts connects it to the channel.
 *
 *   starting --STARTED--> running --EXIT--> draining --writes done--> ended
 *      any of them --fail()--> ended
 */
import type { Readable, Writable } from 'node:stream';
import { AbortError } from '../base/errors.js';
import {
  decodeExit,
  encodeFrame,
  encodeWords,
  FrameType,
  INITIAL_WINDOW,
  ProtocolError,
  StreamNumber,
  wordAt,
  type ChildStatus,
  type Frame,
  type OutputStream,
} from './protocol.js';

/** Where a session's frames go. False asks it to hold back stdin until `resumeInput`. */
export type SendFrame = (frame: Uint8Array) => boolean;

export interface SessionStreams {
  /** Without it the child's stdin is at its end from the start. */
  readonly stdin?: Readable;
  /** Without it the output is dropped. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
}

/** How a command in the guest ended. */
export interface RunResult {
  readonly status: ChildStatus;
  /** The host's stream that failed before all output was written to it (EPIPE, mostly), if one did. */
  readonly outputError: Error | undefined;
}

/** The largest piece of stdin in one frame. */
const STDIN_CHUNK_BYTES = 64 * 1024;
/** Windows are granted in steps of this, so that small writes do not each cost a frame. */
const GRANT_BYTES = 64 * 1024;
const SIGKILL = 9;
const NOTHING = new Uint8Array(0);

/**
 * One output stream on its way to a Writable. One write is under way at a time; what comes meanwhile is joined, so that a
 * guest which sends a window in frames of one byte costs a window of memory, not an object for each frame.
 */
class Output {
  readonly number: OutputStream;
  readonly #writable: Writable | undefined;
  readonly #session: AgentSession;
  readonly #onError = (error: Error): void => this.#session.outputFailed(this, error);
  window = INITIAL_WINDOW;
  ended = false;
  failed = false;
  #ungranted = 0;
  #writing = false;
  /** What waits for the write that is under way: copies, since a view would keep all that came with it. */
  #joined: Uint8Array = NOTHING;
  #joinedBytes = 0;

  constructor(session: AgentSession, number: OutputStream, writable: Writable | undefined) {
    this.number = number;
    this.#session = session;
    this.#writable = writable;
    writable?.on('error', this.#onError);
  }

  get idle(): boolean {
    return this.failed || (!this.#writing && this.#joinedBytes === 0);
  }

  take(bytes: Uint8Array): void {
    if (this.ended) throw new ProtocolError('output after its end');
    if (bytes.length > this.window) throw new ProtocolError('more output than was granted');
    this.window -= bytes.length;
    if (bytes.length === 0) this.ended = true;
    else if (this.#writable === undefined || this.failed) this.#taken(bytes.length);
    else if (this.#writing) this.#join(bytes);
    else this.#write(this.#writable, bytes);
  }

  /** The stream has failed: what was to be written is dropped. */
  fail(): void {
    this.failed = true;
    this.#joined = NOTHING;
    this.#joinedBytes = 0;
  }

  release(): void {
    // A stream that failed may still report it later; that must not become an uncaught error.
    if (!this.failed) this.#writable?.off('error', this.#onError);
  }

  #write(writable: Writable, bytes: Uint8Array): void {
    this.#writing = true;
    writable.write(bytes, (error) => {
      this.#writing = false;
      if (error) this.#session.outputFailed(this, error);
      else this.#taken(bytes.length);
      if (!this.failed && this.#joinedBytes > 0) {
        const joined = this.#joined.subarray(0, this.#joinedBytes);
        this.#joined = NOTHING;
        this.#joinedBytes = 0;
        this.#write(writable, joined);
      }
      this.#session.outputProgress();
    });
  }

  #join(bytes: Uint8Array): void {
    const lengthBytes = this.#joinedBytes + bytes.length;
    if (lengthBytes > this.#joined.length) {
      // Never over a window: that is all that may come before the write under way is done.
      const grown = new Uint8Array(Math.max(lengthBytes, Math.min(2 * lengthBytes, INITIAL_WINDOW)));
      grown.set(this.#joined.subarray(0, this.#joinedBytes));
      this.#joined = grown;
    }
    this.#joined.set(bytes, this.#joinedBytes);
    this.#joinedBytes = lengthBytes;
  }

  #taken(count: number): void {
    this.#ungranted += count;
    if (this.#ungranted < GRANT_BYTES || this.ended) return;
    this.window += this.#ungranted;
    this.#session.grant(this.number, this.#ungranted);
    this.#ungranted = 0;
  }
}

export class AgentSession {
  readonly id: number;
  /** Resolves when the child ended and its output was taken; rejects with what `fail` was given. */
  readonly result: Promise<RunResult>;

  readonly #send: SendFrame;
  readonly #onGone: (session: AgentSession) => void;
  readonly #signal: AbortSignal | undefined;
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #start: { readonly frame: Uint8Array; readonly stdin: Readable | undefined };
  #resolve!: (result: RunResult) => void;
  #reject!: (error: Error) => void;
  #settled = false;
  #exit: ChildStatus | undefined;
  #outputError: Error | undefined;

  #stdin: Readable | undefined;
  #stdinWindow = 0;
  #stdinHeld: Uint8Array | undefined;
  #stdinEnded = false;
  #congested = false;

  constructor(
    id: number,
    startFrame: Uint8Array,
    options: SessionStreams & { signal?: AbortSignal },
    connection: { send: SendFrame; onGone: (session: AgentSession) => void },
  ) {
    this.id = id;
    this.#send = connection.send;
    this.#onGone = connection.onGone;
    this.#signal = options.signal;
    this.#stdout = new Output(this, StreamNumber.STDOUT, options.stdout);
    this.#stderr = new Output(this, StreamNumber.STDERR, options.stderr);
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#start = { frame: startFrame, stdin: options.stdin };
  }

  /** Sends the start frame. Apart from the constructor, since an answer may come before it returns. */
  begin(): void {
    this.#send(this.#start.frame);
    if (this.#settled || this.#exit !== undefined) return;
    if (this.#start.stdin === undefined) this.#endStdin();
    else this.#attachStdin(this.#start.stdin);
  }

  /** Sends a signal to the child's process group. */
  kill(signal: number): void {
    if (this.#exit === undefined) this.#send(encodeWords(FrameType.SIGNAL, this.id, signal));
  }

  /** A frame of this session. @throws ProtocolError when it breaks the rules. */
  handle(frame: Frame): void {
    if (this.#exit !== undefined) throw new ProtocolError('a frame of a session that has ended');
    switch (frame.type) {
      case FrameType.STDOUT:
        return this.#stdout.take(frame.payload);
      case FrameType.STDERR:
        return this.#stderr.take(frame.payload);
      case FrameType.STDIN_WINDOW:
        this.#stdinWindow += wordAt(frame, 0);
        return this.#pumpStdin();
      case FrameType.STDIN_CLOSED:
        return this.#detachStdin();
      case FrameType.EXIT:
        this.#exit = decodeExit(frame);
        this.#detachStdin();
        return this.outputProgress();
      default:
        return; // STARTED, and what a later agent may add
    }
  }

  /** The channel takes stdin again. */
  resumeInput(): void {
    this.#congested = false;
    this.#pumpStdin();
  }

  /** Ends the session from the host's side: the agent or the guest is gone. */
  fail(error: Error): void {
    this.#settle(() => this.#reject(error));
  }

  // Called by Output.

  grant(stream: OutputStream, bytes: number): void {
    this.#send(encodeWords(FrameType.WINDOW, this.id, stream, bytes));
  }

  outputFailed(output: Output, error: Error): void {
    if (output.failed) return;
    output.fail();
    this.#outputError ??= error;
    if (this.#exit === undefined) this.#send(encodeWords(FrameType.CLOSE_OUTPUT, this.id, output.number));
    this.outputProgress();
  }

  outputProgress(): void {
    const status = this.#exit;
    if (status === undefined || !this.#stdout.idle || !this.#stderr.idle) return;
    this.#settle(() => this.#resolve({ status, outputError: this.#outputError }));
  }

  #onAbort = (): void => {
    this.kill(SIGKILL);
    this.fail(new AbortError(this.#signal));
  };

  #settle(how: () => void): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#detachStdin();
    this.#stdout.release();
    this.#stderr.release();
    how();
    this.#onGone(this);
  }

  // Stdin: 'data' events, paused while the window is closed or the channel is full.

  #attachStdin(stdin: Readable): void {
    this.#stdin = stdin;
    stdin.on('data', this.#onStdinData);
    stdin.on('end', this.#onStdinEnd);
    stdin.on('close', this.#onStdinEnd);
    // A terminal that went away reads as an error: for the child it is the end of its input.
    stdin.on('error', this.#onStdinEnd);
    if (stdin.readableEnded || stdin.destroyed) this.#onStdinEnd();
    else this.#pumpStdin();
  }

  #detachStdin(): void {
    const stdin = this.#stdin;
    if (stdin === undefined) return;
    this.#stdin = undefined;
    this.#stdinHeld = undefined;
    stdin.off('data', this.#onStdinData);
    stdin.off('end', this.#onStdinEnd);
    stdin.off('close', this.#onStdinEnd);
    stdin.pause();
  }

  #onStdinData = (chunk: Uint8Array | string): void => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    this.#stdinHeld = this.#stdinHeld === undefined ? bytes : Buffer.concat([this.#stdinHeld, bytes]);
    this.#pumpStdin();
  };

  #onStdinEnd = (): void => {
    this.#stdinEnded = true;
    this.#pumpStdin();
  };

  #pumpStdin(): void {
    const stdin = this.#stdin;
    if (stdin === undefined) return;
    while (this.#stdinHeld !== undefined && this.#stdinWindow > 0 && !this.#congested) {
      const held = this.#stdinHeld;
      const count = Math.min(held.length, this.#stdinWindow, STDIN_CHUNK_BYTES);
      this.#stdinHeld = count < held.length ? held.subarray(count) : undefined;
      this.#stdinWindow -= count;
      this.#congested = !this.#send(encodeFrame(FrameType.STDIN, this.id, held.subarray(0, count)));
    }
    if (this.#stdinEnded && this.#stdinHeld === undefined) {
      this.#detachStdin();
      this.#endStdin();
    } else if (this.#stdinHeld !== undefined || this.#stdinWindow === 0 || this.#congested) {
      stdin.pause();
    } else {
      stdin.resume();
    }
  }

  #endStdin(): void {
    this.#send(encodeFrame(FrameType.STDIN_END, this.id));
  }
}

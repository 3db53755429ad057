/**
 * The inner end of a command's session: a process inside the embedded host that waits for one job on file descriptor 3
 * and runs it with a CommandIo whose streams and terminal are those of the client outside.
 * dist/command/worker.js loads the command's modules first and then calls {@link serveCommand}.
 */
import { constants } from 'node:os';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { CommandIo, CommandSignal } from '../base/command-io.js';
import { VmmError } from '../base/errors.js';
import { Channels } from './channels.js';
import { creditOf, FRAME_CREDIT, FRAME_DATA, FRAME_END, STDERR, STDIN, STDOUT, type Frame } from './frames.js';
import { Link } from './link.js';
import {
  failureOf,
  messageOf,
  ONLY_SESSION,
  type Message,
  type SessionRequest,
  type TerminalSize,
} from './messages.js';
import { FrameReadable, FrameWritable } from './streams.js';

const JOB_FD = 3;

/** Runs one command: arguments without the program's name; resolves to the exit status. */
export type RunCommand = (argv: readonly string[], io: CommandIo) => Promise<number>;

/** Waits for the job, runs it, reports how it ended and ends this process. */
export async function serveCommand(run: RunCommand): Promise<never> {
  const socket = new Socket({ fd: JOB_FD, readable: true, writable: true });
  await serveOn(socket, run, (status) => process.exit(status));
  process.exit(0);
}

/** {@link serveCommand} on any stream; `endProcess` is called for a signal that the command does not take. */
export async function serveOn(stream: Duplex, run: RunCommand, endProcess: (status: number) => void): Promise<void> {
  const job = new WorkerJob(stream, endProcess);
  const request = await job.opened;
  if (request === undefined) return;
  let last: Message;
  try {
    process.chdir(request.cwd);
    // What the command's libraries read of the environment is the client's; what this host set stays.
    Object.assign(process.env, request.env);
    last = { type: 'exit', status: await run(request.argv, job.io(request)) };
  } catch (error) {
    const expected = error instanceof VmmError || error instanceof TypeError || error instanceof RangeError;
    if (!expected) console.error(error);
    last = { type: 'failed', failure: failureOf(error) };
  }
  await job.finish(last);
}

class WorkerJob {
  readonly opened: Promise<SessionRequest | undefined>;
  readonly #link: Link;
  readonly #stdin: FrameReadable;
  readonly #stdout: FrameWritable;
  readonly #stderr: FrameWritable;
  readonly #closed: Promise<void>;
  readonly #resizers = new Set<() => void>();
  readonly #signalTakers = new Set<(signal: CommandSignal) => void>();
  readonly #endProcess: (status: number) => void;
  #channels: Channels | undefined;
  #size: TerminalSize | undefined;
  #finished = false;
  /** The client was told that signals are taken. */
  #running = false;

  constructor(stream: Duplex, endProcess: (status: number) => void) {
    this.#endProcess = endProcess;
    let onOpen: (request: SessionRequest | undefined) => void = () => undefined;
    let onClosed: () => void = () => undefined;
    this.opened = new Promise((resolve) => (onOpen = resolve));
    this.#closed = new Promise((resolve) => (onClosed = resolve));
    this.#link = new Link(stream, stream, {
      onFrame: (frame) => this.#onFrame(frame, onOpen),
      onEnd: () => {
        onOpen(undefined);
        onClosed();
        if (!this.#finished) this.#onSignal('SIGHUP');
      },
    });
    const send = (frame: Frame): void => this.#link.send(frame);
    this.#stdin = new FrameReadable({ session: ONLY_SESSION, stream: STDIN, send });
    this.#stdout = new FrameWritable({ session: ONLY_SESSION, stream: STDOUT, send });
    this.#stderr = new FrameWritable({ session: ONLY_SESSION, stream: STDERR, send });
    // A reader outside that goes away is no crash here: writes fail, and the command learns it from them.
    for (const output of [this.#stdout, this.#stderr]) output.on('error', () => undefined);
  }

  io(request: SessionRequest): CommandIo {
    this.#size ??= request.terminalSize;
    return {
      stdin: this.#stdin,
      stdout: this.#stdout,
      stderr: this.#stderr,
      channels: this.#channels?.all ?? [],
      stdinIsTerminal: request.stdinIsTerminal,
      stdoutIsTerminal: request.stdoutIsTerminal,
      stderrIsTerminal: request.stderrIsTerminal,
      cwd: request.cwd,
      env: process.env,
      terminalSize: () => this.#size,
      onResize: (callback) => registered(this.#resizers, callback),
      setRawMode: (on) => {
        if (request.stdinIsTerminal) this.#link.sendMessage(ONLY_SESSION, { type: 'raw-mode', on });
      },
      onSignal: (callback) => {
        if (!this.#running) this.#link.sendMessage(ONLY_SESSION, { type: 'running' });
        this.#running = true;
        return registered(this.#signalTakers, callback);
      },
    };
  }

  /** Lets the last bytes out, then says how it ended, and waits until that is on its way. */
  async finish(last: Message): Promise<void> {
    this.#finished = true;
    this.#stdin.destroy();
    this.#channels?.destroy();
    await Promise.all([this.#stdout, this.#stderr].map((output) => this.#ended(output)));
    this.#link.sendMessage(ONLY_SESSION, last);
    this.#link.close();
    await this.#closed;
  }

  #ended(output: FrameWritable): Promise<void> {
    if (output.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      output.once('close', resolve);
      output.end();
    });
  }

  #onFrame(frame: Frame, onOpen: (request: SessionRequest) => void): void {
    if (this.#channels?.onFrame(frame) === true) return;
    if (frame.type === FRAME_DATA) return this.#stdin.deliver(frame.payload);
    if (frame.type === FRAME_END) return this.#stdin.deliverEnd();
    if (frame.type === FRAME_CREDIT) return this.#output(frame.stream).grant(creditOf(frame));
    const message = messageOf(frame);
    switch (message.type) {
      case 'open':
        // At once: frames of theirs may follow in the same chunk.
        this.#channels = new Channels(message.request.channels ?? 0, ONLY_SESSION, (next) => this.#link.send(next));
        return onOpen(message.request);
      case 'resize':
        this.#size = message.size;
        for (const callback of [...this.#resizers]) callback();
        return;
      case 'signal':
        return this.#onSignal(message.signal);
      case 'hangup':
        // Nobody is there any more: streams break as those of a closed terminal do, and the command is told.
        this.#stdin.deliverEnd();
        this.#stdout.breakPipe();
        this.#stderr.breakPipe();
        return this.#onSignal('SIGHUP');
      case 'broken':
        return this.#output(message.stream).breakPipe();
      default:
        return;
    }
  }

  #output(stream: number): FrameWritable {
    return stream === STDERR ? this.#stderr : this.#stdout;
  }

  /** A signal that the command takes is its own affair; one that it does not take ends it, as it would outside. */
  #onSignal(signal: CommandSignal): void {
    if (this.#signalTakers.size === 0) return this.#endProcess(128 + constants.signals[signal]);
    for (const callback of [...this.#signalTakers]) callback(signal);
  }
}

function registered<T>(set: Set<T>, callback: T): () => void {
  set.add(callback);
  return () => void set.delete(callback);
}

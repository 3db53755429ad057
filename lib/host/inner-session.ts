/**
 * One session inside the embedded host: a worker that runs a command, whose frames are passed on as they are, or a
 * script of the user's, whose plain pipes are made frames here. Tells the other side exactly once how it ended.
 */
import type { ChildProcess, ChildProcessWithoutNullStreams } from 'node:child_process';
import { rmSync } from 'node:fs';
import { constants } from 'node:os';
import type { Duplex } from 'node:stream';
import { VmmError } from '../base/errors.js';
import type { Bundles, WorkerProcess } from './inner-bundles.js';
import { FRAME_CREDIT, FRAME_DATA, FRAME_END, FRAME_MESSAGE, STDERR, STDIN, STDOUT, creditOf } from './frames.js';
import type { Frame } from './frames.js';
import { Link } from './link.js';
import { failureOf, messageOf, ONLY_SESSION, type Message, type SessionRequest } from './messages.js';
import { FrameReadable, FrameWritable } from './streams.js';

/** What a process that was hung up on gets to tidy up. */
const HANGUP_GRACE_MS = 10_000;

export interface InnerSessionContext {
  readonly link: Link;
  readonly bundles: Bundles;
  readonly log: (text: string) => void;
  readonly onEnd: () => void;
}

export class InnerSession {
  readonly #id: number;
  readonly #request: SessionRequest;
  readonly #context: InnerSessionContext;
  #child: ChildProcess | undefined;
  #ended = false;
  /** The exit statuses of a process that dies of a signal which was passed on to it. */
  readonly #signalStatuses = new Set<number>();
  /** The file of a script that was given as text. */
  #draft: string | undefined;
  #killTimer: NodeJS.Timeout | undefined;
  /** Where frames from outside go; until the process is there they wait. */
  #deliver: ((frame: Frame) => void) | undefined;
  #waiting: Frame[] = [];

  constructor(id: number, request: SessionRequest, context: InnerSessionContext) {
    this.#id = id;
    this.#request = request;
    this.#context = context;
  }

  start(): void {
    const started = this.#request.kind === 'command' ? this.#startCommand() : this.#startScript();
    started.catch((error: unknown) => this.#end({ type: 'failed', failure: failureOf(error) }));
  }

  onFrame(frame: Frame): void {
    const message = frame.type === FRAME_MESSAGE ? messageOf(frame) : undefined;
    if (message?.type === 'signal') this.#signalStatuses.add(128 + constants.signals[message.signal]);
    if (message?.type === 'hangup') {
      this.#killTimer = setTimeout(() => this.kill(), HANGUP_GRACE_MS);
      if (this.#deliver === undefined) return this.kill();
    }
    if (this.#deliver === undefined) this.#waiting.push(frame);
    else this.#deliver(frame);
  }

  kill(): void {
    this.#child?.kill('SIGKILL');
    if (this.#child === undefined) this.#end({ type: 'exit', status: 137 });
  }

  async #startCommand(): Promise<void> {
    const worker = await this.#context.bundles.takeWorker(this.#request.bundle);
    if (this.#ended) return void worker.child.kill('SIGKILL');
    this.#child = worker.child;
    const socket = worker.child.stdio[3] as Duplex;
    let exit: Message | undefined;
    const workerLink = new Link(socket, socket, {
      onFrame: (frame) => {
        if (frame.session !== ONLY_SESSION) return;
        const message = frame.type === FRAME_MESSAGE ? messageOf(frame) : undefined;
        // How it ended is told when the process is gone, so that a session that is over has left nothing behind.
        if (message?.type === 'exit' || message?.type === 'failed') exit = message;
        else this.#context.link.send({ ...frame, session: this.#id });
      },
      onEnd: () => undefined,
    });
    worker.child.once('close', (code, signal) => {
      // A signal ends a command that takes none, as one that winds up does not any more.
      if (code !== null && this.#signalStatuses.has(code)) exit ??= { type: 'exit', status: code };
      this.#end(exit ?? { type: 'failed', failure: crash(worker, code, signal) });
    });
    this.#open((frame) => workerLink.send({ ...frame, session: ONLY_SESSION }));
    workerLink.sendMessage(ONLY_SESSION, { type: 'open', request: this.#request });
    this.#flush();
    this.#context.bundles.prepare(this.#request.bundle);
  }

  async #startScript(): Promise<void> {
    const { child, draft } = await this.#context.bundles.spawnScript(this.#request, `session-${this.#id}`);
    this.#draft = draft;
    if (this.#ended) return void child.kill('SIGKILL');
    this.#child = child;
    const send = (frame: Frame): void => this.#context.link.send(frame);
    const stdin = new FrameReadable({ session: this.#id, stream: STDIN, send });
    const outputs = [STDOUT, STDERR].map((stream) => new FrameWritable({ session: this.#id, stream, send }));
    const [stdout, stderr] = outputs as [FrameWritable, FrameWritable];
    stdin.pipe(child.stdin);
    child.stdin.on('error', () => stdin.resume()); // it reads no more: what still comes is dropped
    child.stdout.pipe(stdout);
    child.stderr.pipe(stderr);
    for (const output of outputs) output.on('error', () => undefined);
    this.#open((frame) => {
      const output = frame.stream === STDOUT ? stdout : stderr;
      if (frame.type === FRAME_DATA) stdin.deliver(frame.payload);
      else if (frame.type === FRAME_END) stdin.deliverEnd();
      else if (frame.type === FRAME_CREDIT) output.grant(creditOf(frame));
      else this.#onScriptMessage(messageOf(frame), child, [stdout, stderr]);
    });
    this.#flush();
    child.once('error', (error) => this.#end({ type: 'failed', failure: failureOf(error) }));
    const finished = outputs.map((output) => new Promise((resolve) => output.once('close', resolve)));
    child.once('close', (code, signal) => {
      const status = code ?? 128 + (signal === null ? 0 : (constants.signals[signal] ?? 0));
      void Promise.all(finished).then(() => this.#end({ type: 'exit', status }));
    });
  }

  #onScriptMessage(
    message: Message,
    child: ChildProcessWithoutNullStreams,
    outputs: [FrameWritable, FrameWritable],
  ): void {
    /** Whoever writes on gets EPIPE, as from any closed pipe. */
    const breakOff = (stream: number): void => {
      (stream === STDOUT ? child.stdout : child.stderr).destroy();
      outputs[stream === STDOUT ? 0 : 1].breakPipe();
    };
    if (message.type === 'signal') child.kill(message.signal);
    else if (message.type === 'broken') breakOff(message.stream);
    else if (message.type === 'hangup') {
      child.kill('SIGHUP');
      breakOff(STDOUT);
      breakOff(STDERR);
    }
  }

  #open(deliver: (frame: Frame) => void): void {
    this.#deliver = deliver;
  }

  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const frame of waiting) this.#deliver?.(frame);
  }

  #end(message: Message): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#killTimer);
    if (this.#draft !== undefined) rmSync(this.#draft, { force: true });
    this.#context.link.sendMessage(this.#id, message);
    this.#context.onEnd();
  }
}

function crash(worker: WorkerProcess, code: number | null, signal: NodeJS.Signals | null) {
  const how = signal === null ? `ended with status ${String(code)}` : `was ended by ${signal}`;
  const words = worker.lastWords();
  return failureOf(
    new VmmError(
      'ERR_EMBEDDED_HOST',
      `the command's process inside the embedded host ${how}${words === '' ? '' : `:\n${words}`}`,
    ),
  );
}

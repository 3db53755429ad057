/**
 * A command in the guest over one request of the control socket: frames in (first a message that says what to run, then its
 * stdin and signals), frames out (its output, last a message with its end). It ends with the request: a client that goes takes
 * its command along.
 */
import { PassThrough, type Readable, type Writable } from 'node:stream';
import type { AgentProcess } from '../agent/client.js';
import type { GuestAgents } from '../agent/guest-agents.js';
import type { Clock, Timer } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { checked } from './check.js';
import { failureOf } from './failures.js';
import { ExecControl, type ExecEnd, ExecRequest } from './schemas.js';
import {
  encodeMessage,
  FramedOutput,
  messageIn,
  type StreamFrame,
  StreamFrameReader,
  StreamType,
} from './stream-frames.js';

const DEFAULT_WAIT_MS = 30_000;
const FIRST_MESSAGE_NS = 30_000_000_000n;
const SIGKILL = 9;
const NO_AGENT =
  "it is in the default initramfs; for a guest with QEMU's: run --qemu-agent (qemuAgent: true), and qemu-guest-agent in it";
const STDIN_WAITING_BYTES = 256 * 1024;

export interface ExecContext {
  readonly agents: GuestAgents;
  readonly clock: Clock;
  /** Fires when the client has gone. */
  readonly signal: AbortSignal;
}

/** A command that was asked for: what of its request has been read. */
export interface ExecStart {
  readonly request: ExecRequest;
  readonly frames: AsyncIterator<StreamFrame>;
  /** Whether the request broke off. */
  readonly isCut: () => boolean;
}

/** Reads the first message. @throws TypeError for one that is no request; VmmError ERR_CONTROL, ERR_TIMEOUT when none comes */
export async function readExecRequest(body: Readable, clock: Clock): Promise<ExecStart> {
  const reader = new StreamFrameReader();
  body.on('error', (error) => reader.destroy(error));
  const late = clock.setTimer(FIRST_MESSAGE_NS, () => {
    reader.destroy(new VmmError('ERR_TIMEOUT', 'exec: nobody said what to run'));
  });
  const frames = body.pipe(reader)[Symbol.asyncIterator]() as AsyncIterator<StreamFrame>;
  const first = await frames.next().finally(() => late.cancel());
  if (first.done === true || first.value.type !== StreamType.MESSAGE) {
    throw new TypeError('exec: the first frame is to be a message with what to run');
  }
  return { request: checked(ExecRequest, messageIn(first.value), 'exec'), frames, isCut: () => body.errored !== null };
}

/** Waits for the agent, so that what is wrong can still be an answer by itself. @throws VmmError ERR_AGENT, ERR_TIMEOUT, ERR_STATE */
export async function startExec(start: ExecStart, context: ExecContext, output: Writable): Promise<Exec> {
  const { agents, signal } = context;
  await agents.ready({ timeoutMs: start.request.waitMs ?? DEFAULT_WAIT_MS, signal }).catch((error: unknown) => {
    if (!(error instanceof VmmError) || error.code !== 'ERR_TIMEOUT' || agents.qemu !== undefined) throw error;
    throw new VmmError('ERR_TIMEOUT', error.message, { cure: NO_AGENT });
  });
  return new Exec(start, context, output);
}

export class Exec {
  readonly #process: AgentProcess;
  readonly #context: ExecContext;
  readonly #frames: AsyncIterator<StreamFrame>;
  readonly #isCut: () => boolean;
  readonly #output: Writable;
  readonly #stdin: PassThrough | undefined;
  readonly #streams: readonly FramedOutput[];
  readonly #timer: Timer | undefined;
  #timedOut = false;

  constructor({ request, frames, isCut }: ExecStart, context: ExecContext, output: Writable) {
    this.#isCut = isCut;
    const { argv, env, cwd, timeoutMs, terminal, stdin = true, isTyped = false } = request;
    this.#context = context;
    this.#frames = frames;
    this.#output = output;
    // That agent wants all input before it starts anything.
    const isLeft = isTyped && context.agents.kind === 'qemu';
    this.#stdin = stdin && !isLeft ? new PassThrough({ highWaterMark: STDIN_WAITING_BYTES }) : undefined;
    const [stdout, stderr] = [
      new FramedOutput(StreamType.STDOUT, output),
      new FramedOutput(StreamType.STDERR, output),
    ] as const;
    this.#streams = [stdout, stderr];
    this.#process = context.agents.start({
      argv,
      ...(env && { env }),
      ...(cwd !== undefined && { cwd }),
      ...(this.#stdin && { stdin: this.#stdin }),
      ...(terminal && { terminal }),
      stdout,
      stderr,
      signal: context.signal,
    });
    if (timeoutMs !== undefined) {
      this.#timer = context.clock.setTimer(BigInt(timeoutMs) * 1_000_000n, () => {
        this.#timedOut = true;
        this.#process.kill(SIGKILL);
      });
    }
  }

  /** Until the command has ended, and that was told; never rejects. */
  async run(): Promise<void> {
    let wrong: unknown;
    // The command need not read what still comes; who sends what is no message is not left in the belief that it was heard.
    void this.#readInput().catch((error: unknown) => {
      // A client that went takes its command along by itself.
      if (this.#isCut()) return;
      wrong = error;
      this.#process.kill(SIGKILL);
    });
    let last: unknown;
    try {
      const { status } = await this.#process.result;
      for (const stream of this.#streams) stream.end();
      if (wrong !== undefined) throw wrong as Error;
      last = { end: { status, timedOut: this.#timedOut } satisfies ExecEnd };
    } catch (error) {
      last = { error: failureOf(error) };
    } finally {
      this.#timer?.cancel();
    }
    if (!this.#context.signal.aborted) this.#output.write(encodeMessage(last));
    this.#output.end();
  }

  async #readInput(): Promise<void> {
    for (;;) {
      const next = await this.#frames.next();
      if (next.done === true) break;
      const frame = next.value;
      if (frame.type === StreamType.MESSAGE) {
        const { signal, resize } = checked(ExecControl, messageIn(frame), 'exec');
        if (signal !== undefined) this.#process.kill(signal);
        if (resize !== undefined) this.#process.resize(resize);
      } else if (frame.type === StreamType.STDIN && this.#stdin?.writable === true) {
        if (frame.payload.length === 0) this.#stdin.end();
        else if (!this.#stdin.write(frame.payload)) await untilDrained(this.#stdin);
      }
    }
    this.#stdin?.end();
  }
}

function untilDrained(stream: PassThrough): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'close', 'error'] as const) stream.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'close', 'error'] as const) stream.on(event, done);
  });
}

/**
 * A guest channel and an agent without a guest, for tests of whatever stands on lib/agent: the channel keeps the rules of
 * credit and throws where a real guest would lose bytes; the agent answers commands with a function of the test's.
 * It can also be made to misbehave, frame by frame.
 */
import type { ChannelHostEnd } from '../chipset/channel-port.js';
import { FrameReader } from './frame-reader.js';
import {
  encodeFrame,
  encodeWords,
  FrameType,
  MAX_PAYLOAD_TO_GUEST,
  MAX_PAYLOAD_TO_HOST,
  PROTOCOL_VERSION,
  wordAt,
  type Frame,
  type StartRequest,
} from './protocol.js';

export class FakeChannel implements ChannelHostEnd {
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  onOpen: (() => void) | undefined;
  pendingBytes = 0;
  creditBytes = 0;
  /** While true `send` asks the host to hold back. */
  congested = false;
  /** What a guest would read. */
  onGuestBytes: ((bytes: Uint8Array) => void) | undefined;

  send(bytes: Uint8Array): boolean {
    this.onGuestBytes?.(bytes.slice());
    return !this.congested;
  }

  credit(bytes: number): void {
    this.creditBytes += bytes;
  }

  /** The guest opens a session. */
  open(): void {
    this.creditBytes = 0;
    this.onOpen?.();
  }

  /** The guest sends. @throws Error without credit: a guest that sends then has lost its bytes. */
  fromGuest(bytes: Uint8Array): void {
    if (this.onReceive === undefined) return;
    if (bytes.length > this.creditBytes) throw new Error(`the host gave credit for ${this.creditBytes} bytes only`);
    this.creditBytes -= bytes.length;
    this.onReceive(bytes.slice());
  }
}

/** A command in the fake guest. */
export class FakeProcess {
  readonly session: number;
  readonly request: StartRequest;
  readonly signals: number[] = [];
  readonly closedOutputs: number[] = [];
  readonly granted: Record<number, number> = { 1: 0, 2: 0 };
  stdin: Buffer = Buffer.alloc(0);
  stdinEnded = false;
  onChange: (() => void) | undefined;
  readonly #channel: FakeChannel;

  constructor(channel: FakeChannel, session: number, request: StartRequest) {
    this.#channel = channel;
    this.session = session;
    this.request = request;
  }

  grantStdin(bytes: number): void {
    this.#send(encodeWords(FrameType.STDIN_WINDOW, this.session, bytes));
  }

  closeStdin(): void {
    this.#send(encodeFrame(FrameType.STDIN_CLOSED, this.session));
  }

  stdout(bytes: Uint8Array | string): void {
    this.#output(FrameType.STDOUT, bytes);
  }

  stderr(bytes: Uint8Array | string): void {
    this.#output(FrameType.STDERR, bytes);
  }

  exit(code: number): void {
    this.#send(encodeWords(FrameType.EXIT, this.session, 0, code));
  }

  die(signal: number): void {
    this.#send(encodeWords(FrameType.EXIT, this.session, 1, signal));
  }

  fail(errno: number): void {
    this.#send(encodeWords(FrameType.EXIT, this.session, 2, errno));
  }

  /** Resolves when `condition` holds, looked at after every frame of the host. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => (this.onChange = resolve));
  }

  #output(type: number, data: Uint8Array | string): void {
    const bytes = Buffer.from(data);
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD_TO_HOST) {
      this.#send(encodeFrame(type, this.session, bytes.subarray(at, at + MAX_PAYLOAD_TO_HOST)));
    }
  }

  #send(frame: Uint8Array): void {
    this.#channel.fromGuest(frame);
  }
}

/** For a fake agent's `onStart`: answers once the client has heard that the command runs. */
export const answering =
  (stdout: string | Uint8Array, stderr = '', code = 0) =>
  (process: FakeProcess): void => {
    queueMicrotask(() => {
      if (stdout.length > 0) process.stdout(stdout);
      if (stderr !== '') process.stderr(stderr);
      process.exit(code);
    });
  };

export class FakeAgent {
  readonly channel: FakeChannel;
  readonly processes = new Map<number, FakeProcess>();
  /** Frames to the agent itself: power, clock, ping. */
  readonly controls: { type: number; payload: Uint8Array }[] = [];
  /** What the guest's monotonic clock says; without it the agent does not know the question. */
  monotonicNs: (() => bigint) | undefined;
  /** While true questions are not answered. */
  silent = false;
  readonly #onStart: (process: FakeProcess) => void;
  #reader: FrameReader;

  constructor(channel: FakeChannel, onStart: (process: FakeProcess) => void = () => {}) {
    this.channel = channel;
    this.#onStart = onStart;
    this.#reader = new FrameReader(MAX_PAYLOAD_TO_GUEST, (frame) => this.#take(frame));
    channel.onGuestBytes = (bytes) => this.#reader.push(bytes);
  }

  /** Opens the channel and greets, as the agent does when it starts. */
  boot(options: { version?: number; release?: string; notice?: string } = {}): void {
    this.processes.clear();
    this.#reader = new FrameReader(MAX_PAYLOAD_TO_GUEST, (frame) => this.#take(frame));
    this.channel.open();
    const texts = [
      'fake-agent 1',
      'Linux',
      options.release ?? '6.1.0-fake',
      '#1 SMP fake',
      'x86_64',
      options.notice ?? '',
    ];
    const strings = Buffer.from(texts.map((text) => `${text}\0`).join(''));
    const payload = Buffer.alloc(16 + strings.length);
    payload.writeUInt32LE(options.version ?? PROTOCOL_VERSION, 0);
    payload.writeUInt32LE(2, 4);
    payload.writeBigUInt64LE(256n * 1024n * 1024n, 8);
    strings.copy(payload, 16);
    this.channel.fromGuest(encodeFrame(FrameType.HELLO, 0, payload));
  }

  #take(frame: Frame): void {
    if (frame.type === FrameType.GET_CLOCK || frame.type === FrameType.PING) {
      if (!this.silent) this.#answer(frame);
      return;
    }
    if (frame.session === 0) {
      this.controls.push({ type: frame.type, payload: frame.payload.slice() });
      return;
    }
    if (frame.type === FrameType.START) {
      const process = new FakeProcess(this.channel, frame.session, decodeStart(frame));
      this.processes.set(frame.session, process);
      this.channel.fromGuest(encodeWords(FrameType.STARTED, frame.session, 100 + frame.session));
      this.#onStart(process);
      return;
    }
    const process = this.processes.get(frame.session);
    if (process === undefined) return;
    if (frame.type === FrameType.STDIN) process.stdin = Buffer.concat([process.stdin, frame.payload]);
    else if (frame.type === FrameType.STDIN_END) process.stdinEnded = true;
    else if (frame.type === FrameType.SIGNAL) process.signals.push(wordAt(frame, 0));
    else if (frame.type === FrameType.CLOSE_OUTPUT) process.closedOutputs.push(wordAt(frame, 0));
    else if (frame.type === FrameType.WINDOW) {
      const stream = wordAt(frame, 0);
      process.granted[stream] = (process.granted[stream] ?? 0) + wordAt(frame, 1);
    }
    process.onChange?.();
  }

  #answer({ type, session, payload }: Frame): void {
    if (type === FrameType.PING) this.channel.fromGuest(encodeFrame(FrameType.PONG, session, payload));
    else if (this.monotonicNs)
      this.channel.fromGuest(encodeFrame(FrameType.CLOCK, session, encodeNs(this.monotonicNs())));
  }
}

function encodeNs(ns: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(ns).buffer);
}

function decodeStart(frame: Frame): StartRequest {
  const argc = wordAt(frame, 1);
  const envc = wordAt(frame, 2);
  const texts = Buffer.from(frame.payload.subarray(16)).toString().split('\0');
  const env = texts.slice(1 + argc, 1 + argc + envc).map((text) => text.split(/=(.*)/s, 2) as [string, string]);
  const size = wordAt(frame, 3);
  const terminal = { columns: size & 0xffff, rows: size >>> 16 };
  const request = { cwd: texts[0] ?? '', argv: texts.slice(1, 1 + argc), env: Object.fromEntries(env) };
  return wordAt(frame, 0) === 1 ? { ...request, terminal } : request;
}

/**
 * The host end of the guest agent: takes the bytes of the guest channel, keeps the sessions, and turns what the guest
 * does wrong into an error of the call that waits. It trusts nothing from the guest, and never throws into the channel.
 */
import { randomBytes } from 'node:crypto';
import type { ChannelHostEnd } from '../chipset/channel-port.js';
import { hostClock, type Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import { FrameReader } from './frame-reader.js';
import {
  decodeClock,
  decodeHello,
  encodeFrame,
  encodeResize,
  encodeSetClock,
  encodeStart,
  encodeWords,
  FrameType,
  MAX_PAYLOAD_TO_HOST,
  PowerAction,
  PROTOCOL_VERSION,
  ProtocolError,
  SEED_BYTES,
  type Frame,
  type GuestHello,
  type StartRequest,
  type TerminalSize,
} from './protocol.js';
import { GUEST_PATH } from './guest-path.js';
import { setGuestClock } from './set-clock.js';
import { AgentSession, type RunResult, type SessionStreams } from './session.js';
import { type WaitOptions, Waiters } from './waiters.js';

export interface AgentRunOptions extends SessionStreams {
  /** The command and its arguments; a name without a slash is looked for in the PATH of `env`. */
  readonly argv: readonly (string | Uint8Array)[];
  /** All of the command's environment. Default: PATH, HOME=/root and TERM=dumb. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default '/'. */
  readonly cwd?: string;
  /** A terminal of that size in place of three pipes: all output is stdout's. */
  readonly terminal?: TerminalSize;
  /** Kills the command with SIGKILL. */
  readonly signal?: AbortSignal;
}

/** A command that runs in the guest. */
export interface AgentProcess {
  /** Its end, when all of its output was taken. Rejects with ERR_AGENT when the guest or the agent goes before. */
  readonly result: Promise<RunResult>;
  /** Sends a signal, by number, to its process group. */
  kill(signal: number): void;
  /** Tells it of another size of its terminal. @throws RangeError */
  resize(size: TerminalSize): void;
}

/** The environment of a command that was given none. */
export const DEFAULT_GUEST_ENV: Readonly<Record<string, string>> = {
  PATH: GUEST_PATH,
  HOME: '/root',
  TERM: 'dumb',
};

/** What the guest may have on the way to us, on all streams together. */
const CHANNEL_CREDIT_BYTES = 1024 * 1024;

export class AgentClient {
  readonly #channel: ChannelHostEnd;
  readonly #clock: Clock;
  readonly #onActivity: () => void;
  readonly #sessions = new Map<number, AgentSession>();
  readonly #hellos: Waiters<GuestHello>;
  /** Told of each agent that says hello; it must not throw. */
  onHello: ((hello: GuestHello) => void) | undefined;
  #reader: FrameReader | undefined;
  #hello: GuestHello | undefined;
  /** What the guest's clock says, by the question's number. */
  readonly #clockQuestions = new Map<number, Waiters<bigint | undefined>>();
  #nextSession = 1;
  #failure: Error | undefined;

  /**
   * Takes the channel's callbacks. To be made before the guest runs, so that no opening is missed. `onActivity` is told
   * of everything that comes of the guest, before its meaning is known.
   */
  constructor(channel: ChannelHostEnd, options: { clock?: Clock; onActivity?: () => void } = {}) {
    this.#channel = channel;
    this.#clock = options.clock ?? hostClock;
    this.#hellos = new Waiters(this.#clock);
    this.#onActivity = options.onActivity ?? (() => undefined);
    channel.onOpen = () => this.#opened();
    channel.onReceive = (bytes) => this.#received(bytes);
    channel.onDrain = () => this.#drained();
  }

  /** What the agent said of itself, once it did; undefined of one that has gone. */
  get guest(): GuestHello | undefined {
    return this.#failure === undefined ? this.#hello : undefined;
  }

  /**
   * Waits for the agent's hello.
   *
   * @throws VmmError ERR_TIMEOUT after `timeoutMs`; ERR_AGENT when the client is closed or the agent speaks another
   * protocol; ERR_ABORTED.
   */
  ready(options: WaitOptions = {}): Promise<GuestHello> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#hello !== undefined) return Promise.resolve(this.#hello);
    return this.#hellos.wait(options, 'no agent in the guest');
  }

  /**
   * Starts a command. The agent must be ready.
   *
   * @throws VmmError ERR_STATE before the agent's hello; ERR_AGENT after `close`; TypeError or RangeError for an argv or
   * env that cannot be passed.
   */
  start(options: AgentRunOptions): AgentProcess {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#hello === undefined) throw new VmmError('ERR_STATE', 'the agent in the guest has not answered yet');
    if (options.signal?.aborted) throw new AbortError(options.signal);
    const id = this.#number();
    const request: StartRequest = {
      argv: options.argv,
      env: options.env ?? DEFAULT_GUEST_ENV,
      cwd: options.cwd ?? '/',
      terminal: options.terminal,
    };
    const frame = encodeStart(id, request);
    const session = new AgentSession(id, frame, options, {
      send: (bytes) => this.#send(bytes),
      onGone: (gone) => this.#sessions.delete(gone.id),
    });
    this.#sessions.set(id, session);
    session.begin();
    return {
      result: session.result,
      kill: (signal) => session.kill(signal),
      resize: (size) => void this.#send(encodeResize(id, size)),
    };
  }

  /** Starts a command and waits for its end. */
  async run(options: AgentRunOptions): Promise<RunResult> {
    return this.start(options).result;
  }

  /** Asks the guest to end its commands, sync, and power off, reboot or halt. */
  requestPower(action: keyof typeof PowerAction): void {
    this.#send(encodeWords(FrameType.POWEROFF, 0, PowerAction[action]));
  }

  /** Sets the guest's wall clock: it was `wallMs` (milliseconds since 1970) when its monotonic clock said `monotonicNs`; default: when it reads this. */
  setClock(wallMs: number, monotonicNs?: bigint): void {
    this.#send(encodeSetClock(BigInt(Math.round(wallMs * 1000)) * 1000n, monotonicNs));
  }

  /**
   * What the guest's monotonic clock says, in nanoseconds; undefined of an agent that does not know the question. It must be ready.
   *
   * @throws as ready()
   */
  async readClock(options: WaitOptions = {}): Promise<bigint | undefined> {
    if (this.#failure !== undefined) throw this.#failure;
    const number = this.#number();
    const question = new Waiters<bigint | undefined>(this.#clock);
    this.#clockQuestions.set(number, question);
    const answer = question.wait(options, 'no answer of the agent in the guest');
    // Frames are answered in turn: a pong with no clock before it comes from who has skipped the question.
    this.#send(encodeFrame(FrameType.GET_CLOCK, number));
    this.#send(encodeFrame(FrameType.PING, number));
    return answer.finally(() => this.#clockQuestions.delete(number));
  }

  /**
   * Waits for the agent of a restored guest and makes it one of its own: its random numbers are not those of its siblings any more,
   * and its clock is `wallMs`, where that is given (for a machine that was restored with `clock: 'step'`).
   *
   * @throws as ready()
   */
  async readyAsClone(options: WaitOptions & { wallMs?: () => number } = {}): Promise<GuestHello> {
    const { wallMs, ...waiting } = options;
    const hello = await this.ready(waiting);
    this.reseed();
    if (wallMs) {
      await setGuestClock(
        { ask: () => this.readClock(waiting), set: (ms, monotonicNs) => this.setClock(ms, monotonicNs) },
        wallMs,
      );
    }
    return hello;
  }

  /**
   * Mixes randomness of the host into the guest's: a clone of a machine has the same generator as its siblings. Kernels that
   * know the generation ID (chipset/generation-id.ts) have done so by themselves before; it does no harm twice.
   */
  reseed(): void {
    this.#send(encodeFrame(FrameType.RESEED, 0, randomBytes(SEED_BYTES)));
  }

  /** Ends the connection: whatever waits rejects with `reason`. Nothing more is sent or taken. */
  close(reason: Error = new VmmError('ERR_AGENT', 'the connection to the guest was closed')): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#channel.onOpen = undefined;
    this.#channel.onReceive = undefined;
    this.#channel.onDrain = undefined;
    this.#endSessions(reason);
    this.#hellos.reject(reason);
  }

  #endSessions(reason: Error): void {
    for (const session of [...this.#sessions.values()]) {
      // A session whose caller has gone must not become an unhandled rejection.
      session.result.catch(() => undefined);
      session.fail(reason);
    }
    this.#sessions.clear();
    for (const question of [...this.#clockQuestions.values()]) question.reject(reason);
  }

  /** Of a session, or of a question and its answer. */
  #number(): number {
    const number = this.#nextSession;
    this.#nextSession = number === 0xffffffff ? 1 : number + 1;
    return number;
  }

  #send(frame: Uint8Array): boolean {
    if (this.#failure !== undefined) return false;
    return this.#channel.send(frame);
  }

  #opened(): void {
    this.#onActivity();
    this.#hello = undefined;
    this.#reader = new FrameReader(MAX_PAYLOAD_TO_HOST, (frame) => this.#handle(frame));
    this.#endSessions(new VmmError('ERR_AGENT', 'the agent in the guest started over'));
    this.#channel.credit(CHANNEL_CREDIT_BYTES);
  }

  #received(bytes: Uint8Array): void {
    this.#onActivity();
    try {
      this.#reader?.push(bytes);
      // What came is bounded by the sessions' windows and by the reader; the channel may always go on.
      if (this.#failure === undefined) this.#channel.credit(bytes.length);
    } catch (error) {
      const detail = error instanceof ProtocolError ? error.message : 'an error of ours';
      this.close(new VmmError('ERR_AGENT', `the agent in the guest broke its protocol: ${detail}`, { cause: error }));
    }
  }

  #drained(): void {
    for (const session of this.#sessions.values()) session.resumeInput();
  }

  #handle(frame: Frame): void {
    if (this.#failure !== undefined) return;
    if (frame.type === FrameType.HELLO) {
      this.#greeted(decodeHello(frame));
      return;
    }
    if (this.#hello === undefined) throw new ProtocolError('a frame before the hello');
    if (frame.type === FrameType.CLOCK || frame.type === FrameType.PONG) {
      const ns = frame.type === FrameType.CLOCK ? decodeClock(frame) : undefined;
      this.#clockQuestions.get(frame.session)?.resolve(ns);
      return;
    }
    // The session may be gone here (aborted) while its frames are on the way.
    this.#sessions.get(frame.session)?.handle(frame);
  }

  #greeted(hello: GuestHello): void {
    if (this.#hello !== undefined) throw new ProtocolError('a second hello');
    if (hello.version !== PROTOCOL_VERSION) {
      throw new ProtocolError(`it speaks version ${hello.version}, and ${PROTOCOL_VERSION} is wanted`);
    }
    this.#hello = hello;
    this.#hellos.resolve(hello);
    this.onHello?.(hello);
  }
}

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
import { AgentSession, type RunResult, type SessionStreams } from './session.js';

export interface AgentRunOptions extends SessionStreams {
  /** The command and its arguments; a name without a slash is looked for in the PATH of `env`. */
  readonly argv: readonly string[];
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
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
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
  #reader: FrameReader | undefined;
  #hello: GuestHello | undefined;
  #helloWaiters = new Set<{ resolve: (hello: GuestHello) => void; reject: (error: Error) => void }>();
  #nextSession = 1;
  #failure: Error | undefined;

  /**
   * Takes the channel's callbacks. To be made before the guest runs, so that no opening is missed. `onActivity` is told
   * of everything that comes of the guest, before its meaning is known.
   */
  constructor(channel: ChannelHostEnd, options: { clock?: Clock; onActivity?: () => void } = {}) {
    this.#channel = channel;
    this.#clock = options.clock ?? hostClock;
    this.#onActivity = options.onActivity ?? (() => undefined);
    channel.onOpen = () => this.#opened();
    channel.onReceive = (bytes) => this.#received(bytes);
    channel.onDrain = () => this.#drained();
  }

  /** What the agent said of itself, once it did. */
  get guest(): GuestHello | undefined {
    return this.#hello;
  }

  /**
   * Waits for the agent's hello.
   *
   * @throws VmmError ERR_TIMEOUT after `timeoutMs`; ERR_AGENT when the client is closed or the agent speaks another
   * protocol; ERR_ABORTED.
   */
  ready(options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<GuestHello> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#hello !== undefined) return Promise.resolve(this.#hello);
    if (options.signal?.aborted) return Promise.reject(new AbortError(options.signal));
    return new Promise((resolve, reject) => {
      const done = (): void => {
        this.#helloWaiters.delete(waiter);
        timer?.cancel();
        options.signal?.removeEventListener('abort', onAbort);
      };
      const waiter = {
        resolve: (hello: GuestHello) => (done(), resolve(hello)),
        reject: (error: Error) => (done(), reject(error)),
      };
      const onAbort = (): void => waiter.reject(new AbortError(options.signal));
      const timer =
        options.timeoutMs === undefined
          ? undefined
          : this.#clock.setTimer(BigInt(Math.ceil(options.timeoutMs)) * 1_000_000n, () =>
              waiter.reject(new VmmError('ERR_TIMEOUT', `no agent in the guest after ${options.timeoutMs ?? 0} ms`)),
            );
      options.signal?.addEventListener('abort', onAbort, { once: true });
      this.#helloWaiters.add(waiter);
    });
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
    const id = this.#nextSession;
    const request: StartRequest = {
      argv: options.argv,
      env: options.env ?? DEFAULT_GUEST_ENV,
      cwd: options.cwd ?? '/',
      terminal: options.terminal,
    };
    const frame = encodeStart(id, request);
    this.#nextSession = id === 0xffffffff ? 1 : id + 1;
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

  /** Sets the guest's wall clock. */
  setClock(wallMs: number): void {
    this.#send(encodeSetClock(BigInt(Math.round(wallMs * 1000)) * 1000n));
  }

  /**
   * Waits for the agent of a restored guest and makes it one of its own: its random numbers are not those of its siblings any more,
   * and its clock is `wallMs`, where that is given (for a machine that was restored with `clock: 'step'`).
   *
   * @throws as ready()
   */
  async readyAsClone(
    options: Parameters<AgentClient['ready']>[0] & { wallMs?: () => number } = {},
  ): Promise<GuestHello> {
    const { wallMs, ...waiting } = options;
    const hello = await this.ready(waiting);
    this.reseed();
    if (wallMs) this.setClock(wallMs());
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
    for (const waiter of [...this.#helloWaiters]) waiter.reject(reason);
  }

  #endSessions(reason: Error): void {
    for (const session of [...this.#sessions.values()]) {
      // A session whose caller has gone must not become an unhandled rejection.
      session.result.catch(() => undefined);
      session.fail(reason);
    }
    this.#sessions.clear();
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
    // The session may be gone here (aborted) while its frames are on the way.
    this.#sessions.get(frame.session)?.handle(frame);
  }

  #greeted(hello: GuestHello): void {
    if (this.#hello !== undefined) throw new ProtocolError('a second hello');
    if (hello.version !== PROTOCOL_VERSION) {
      throw new ProtocolError(`it speaks version ${hello.version}, and ${PROTOCOL_VERSION} is wanted`);
    }
    this.#hello = hello;
    for (const waiter of [...this.#helloWaiters]) waiter.resolve(hello);
  }
}

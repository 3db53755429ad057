/**
 * What the parties of the embedded host say to each other, as JSON in message frames.
 *
 *     client  --open, resize, signal, hangup-->   broker --> inner daemon --> worker
 *     client  <--running, raw-mode, broken, exit, failed-- broker <-- inner daemon <-- worker
 *     client  --status, drain, stop--> broker         broker --attach, ping--> inner daemon --hello, pong--> broker
 *
 * Sessions are numbered by the broker; on the links of a client and of a worker their session is always 1.
 */
import { VmmError, type VmmErrorCode } from '../base/errors.js';
import type { CommandSignal } from '../base/command-io.js';
import { FRAME_MESSAGE, type Frame } from './frames.js';
import type { SharedFolder } from './paths.js';

/** Changes when the meaning of a frame or message does; part of the host's key. */
export const PROTOCOL_VERSION = 3;
/** The one session on the link of a client or a worker. */
export const ONLY_SESSION = 1;

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** A packed build of vivarium: its key, and the archive's path as seen inside. */
export interface BundleReference {
  readonly key: string;
  readonly path: string;
}

/** Everything a process inside needs to know of the one outside that it works for. */
export interface SessionRequest {
  readonly kind: 'command' | 'script';
  /** Arguments of the vivarium command; or a script's path (as seen inside) and its arguments. */
  readonly argv: readonly string[];
  /** The working folder, as seen inside. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly stdinIsTerminal: boolean;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  readonly terminalSize?: TerminalSize;
  /** How many byte streams of its own, both ways, the command has beside the first three. */
  readonly channels?: number;
  /** The build of vivarium that is to be used. */
  readonly bundle: BundleReference;
  /** A script given as text rather than as a path. */
  readonly source?: string;
}

/** A failure as it travels; made an error again by {@link errorOf}. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly cure?: string;
}

export interface HostStatus {
  readonly key: string;
  readonly brokerPid: number;
  readonly qemuPid: number | undefined;
  readonly state: 'starting' | 'ready' | 'draining';
  readonly sessions: number;
  readonly startedAt: string;
  /** From the broker's start to the host's being ready; undefined while it starts. */
  readonly startMs: number | undefined;
}

export type Message =
  // client to broker
  | { readonly type: 'greet'; readonly key: string }
  | { readonly type: 'open'; readonly request: SessionRequest }
  | { readonly type: 'status' }
  | { readonly type: 'stop' }
  | { readonly type: 'drain' }
  // broker to client
  | { readonly type: 'greeting'; readonly key: string; readonly status: HostStatus }
  | { readonly type: 'ready'; readonly status: HostStatus }
  | { readonly type: 'status-is'; readonly status: HostStatus }
  // client to worker
  | { readonly type: 'resize'; readonly size: TerminalSize }
  | { readonly type: 'signal'; readonly signal: CommandSignal }
  | { readonly type: 'hangup' }
  // either way: nobody reads this stream any more
  | { readonly type: 'broken'; readonly stream: number }
  // worker to client
  /** The command takes signals from here on; before, one ends the session from outside. */
  | { readonly type: 'running' }
  | { readonly type: 'raw-mode'; readonly on: boolean }
  | { readonly type: 'exit'; readonly status: number }
  | { readonly type: 'failed'; readonly failure: Failure }
  // broker and inner daemon
  | { readonly type: 'hello'; readonly uptimeMs: number }
  | { readonly type: 'attach'; readonly wallMs: number; readonly folders: readonly SharedFolder[] }
  | { readonly type: 'attached' }
  | { readonly type: 'prepare'; readonly bundle: BundleReference }
  | { readonly type: 'ping'; readonly count: number }
  | { readonly type: 'pong'; readonly count: number }
  | { readonly type: 'power-off' };

export function messageFrame(session: number, message: Message): Frame {
  return { session, type: FRAME_MESSAGE, stream: 0, payload: Buffer.from(JSON.stringify(message)) };
}

/** The message in a frame. @throws VmmError ERR_EMBEDDED_HOST when there is none. */
export function messageOf(frame: Frame): Message {
  try {
    const { buffer, byteOffset, length } = frame.payload;
    const value: unknown = JSON.parse(Buffer.from(buffer, byteOffset, length).toString('utf8'));
    if (typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string') {
      return value as Message;
    }
  } catch {
    // falls through to the error below
  }
  throw new VmmError('ERR_EMBEDDED_HOST', 'a message that is no message');
}

export function failureOf(error: unknown): Failure {
  if (error instanceof VmmError) {
    return { code: error.code, message: error.message, ...(error.cure === undefined ? {} : { cure: error.cure }) };
  }
  return { code: 'ERR_EMBEDDED_HOST', message: error instanceof Error ? error.message : String(error) };
}

export function errorOf(failure: Failure): VmmError {
  const options = failure.cure === undefined ? {} : { cure: failure.cure };
  return new VmmError(failure.code as VmmErrorCode, failure.message, options);
}

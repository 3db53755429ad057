/**
 * A tool of the guest that is run for what it answers: bounded output in, bytes or a typed error out. What it complains of is
 * recognised by the texts that the C libraries and shells of Linux have for an errno; nothing else of it is believed.
 */
import { type Readable, Writable } from 'node:stream';
import { AbortError, GuestFileError } from '../base/errors.js';
import type { AgentRunOptions } from './client.js';
import { GUEST_PATH } from './guest-path.js';
import { LastWords } from './last-words.js';
import type { ChildStatus } from './protocol.js';
import type { RunResult } from './session.js';
import type { WaitOptions } from './waiters.js';

/** What of an AgentClient, or of GuestAgents, is used. */
export interface GuestTools {
  ready(options?: WaitOptions): Promise<unknown>;
  run(options: AgentRunOptions): Promise<RunResult>;
}

export interface GuestToolOptions {
  /** For the agent in the guest. Default 30 000. */
  readonly waitMs?: number;
  /** Kills the tool. */
  readonly signal?: AbortSignal;
}

export interface GuestToolCall extends GuestToolOptions {
  /** What the call is about, for errors. */
  readonly what: string;
  readonly argv: readonly [string, ...(string | Uint8Array)[]];
  readonly stdin?: Readable;
  /** What it may print; one that prints more is killed. */
  readonly maxBytes: number;
  /** What may be done about more than that. */
  readonly cure?: string;
}

const DEFAULT_WAIT_MS = 30_000;
/** Messages of the C locale. */
export const GUEST_TOOL_ENVIRONMENT = {
  PATH: GUEST_PATH,
  HOME: '/root',
  LC_ALL: 'C',
} as const;
/** What a shell exits with for a command that it did not find, or may not execute. */
const NOT_FOUND = 127;
const NOT_EXECUTABLE = 126;

/** The texts of glibc, musl, dash and busybox, each at the end of a line. */
const REASONS: readonly (readonly [errno: string, ...texts: string[]])[] = [
  ['ENOENT', 'No such file or directory', 'Directory nonexistent', 'nonexistent directory', 'No such file'],
  ['EISDIR', 'Is a directory'],
  ['ENOTDIR', 'Not a directory'],
  ['EACCES', 'Permission denied'],
  ['EPERM', 'Operation not permitted'],
  ['EROFS', 'Read-only file system'],
  ['ENOSPC', 'No space left on device'],
  ['EDQUOT', 'Disk quota exceeded', 'Quota exceeded'],
  ['EFBIG', 'File too large'],
  ['ENAMETOOLONG', 'File name too long', 'Filename too long'],
  ['ELOOP', 'Too many levels of symbolic links', 'Symbolic link loop'],
  ['EIO', 'Input/output error', 'I/O error'],
  ['EINVAL', 'Invalid argument'],
  ['ETXTBSY', 'Text file busy'],
  ['ENXIO', 'No such device or address'],
];

/**
 * Runs a tool and takes what it prints.
 *
 * @throws GuestFileError for what it says is wrong, for more than `maxBytes`, and where the guest has no such tool; VmmError
 *   ERR_TIMEOUT, ERR_AGENT when no agent answers, or it goes away; AbortError
 */
export async function runGuestTool(tools: GuestTools, call: GuestToolCall): Promise<Buffer> {
  const { what, argv, stdin, maxBytes, cure, signal } = call;
  await tools.ready({ timeoutMs: call.waitMs ?? DEFAULT_WAIT_MS, ...(signal && { signal }) });
  const [enough, words] = [new AbortController(), new LastWords()];
  const stdout = new Bounded(maxBytes, () => enough.abort());
  let status: ChildStatus;
  try {
    ({ status } = await tools.run({
      argv,
      env: GUEST_TOOL_ENVIRONMENT,
      stdout,
      stderr: words,
      ...(stdin && { stdin }),
      signal: signal === undefined ? enough.signal : AbortSignal.any([signal, enough.signal]),
    }));
  } catch (error) {
    if (!(error instanceof AbortError)) throw error;
    if (signal?.aborted === true) throw new AbortError(signal);
    throw tooMuch(what, maxBytes, cure);
  }
  // Its end may have come in one piece with the last of too much.
  if (stdout.isFull) throw tooMuch(what, maxBytes, cure);
  if (status.kind === 'exited' && status.code === 0) return stdout.bytes;
  throw failureOf(what, argv[0], status, words.text);
}

function tooMuch(what: string, maxBytes: number, cure: string | undefined): GuestFileError {
  const message = `${what}: it is more than ${maxBytes} bytes`;
  return new GuestFileError(message, 'EFBIG', cure === undefined ? {} : { cure });
}

function failureOf(what: string, tool: string, status: ChildStatus, words: string): GuestFileError {
  if (status.kind === 'not-started' || (status.kind === 'exited' && isMissing(status.code))) {
    return new GuestFileError(`${what}: the guest has no ${tool}, or lacks what that calls`, 'ENOSYS');
  }
  const last = words.split('; ').at(-1) ?? '';
  for (const [errno, ...texts] of REASONS) {
    if (texts.some((text) => last === text || last.endsWith(`: ${text}`)))
      return new GuestFileError(`${what}: ${texts[0]!.toLowerCase()}`, errno);
  }
  return new GuestFileError(`${what}: ${words === '' ? `${tool} in the guest failed` : words}`, undefined);
}

function isMissing(code: number): boolean {
  return code === NOT_FOUND || code === NOT_EXECUTABLE;
}

/** Keeps copies of what is written, up to a bound; of more than that nothing. */
class Bounded extends Writable {
  readonly #maxBytes: number;
  readonly #onFull: () => void;
  #chunks: Buffer[] = [];
  #lengthBytes = 0;
  isFull = false;

  constructor(maxBytes: number, onFull: () => void) {
    super();
    this.#maxBytes = maxBytes;
    this.#onFull = onFull;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks, this.#lengthBytes);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#lengthBytes += chunk.length;
    if (!this.isFull && this.#lengthBytes > this.#maxBytes) {
      this.isFull = true;
      this.#chunks = [];
      this.#onFull();
    }
    if (!this.isFull) this.#chunks.push(Buffer.from(chunk));
    done();
  }
}

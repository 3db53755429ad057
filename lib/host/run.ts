/**
 * What the embedded host does for its users: runs the vivarium command inside it as if it ran here, runs a script
 * inside it, tells its state, stops it. The joints (image, bundle, broker, session) are in the files beside this.
 */
import { PassThrough, Readable, Writable } from 'node:stream';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { AbortError, VmmError } from '../base/errors.js';
import { checkOptionNames } from '../base/options.js';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import type { Logger } from '../base/logger.js';
import { bundle } from './bundle.js';
import { connectHost, connectRunning, type HostConnection } from './client.js';
import { hostImage } from './image.js';
import { FRAME_MESSAGE } from './frames.js';
import { errorOf, messageOf, ONLY_SESSION, type HostStatus, type Message, type SessionRequest } from './messages.js';
import { toInnerPath } from './paths.js';
import { locateQemu } from './qemu.js';
import { runSession, type SessionEnd, type SessionIo } from './session.js';

export interface EmbeddedOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log?: Logger;
}

export interface CommandOptions extends EmbeddedOptions {
  /** Each is given a byte stream to the command inside, where it is the one of the same index in `channels` of its io. */
  readonly join?: readonly ((channel: Channel) => void)[];
}

/** Variables of the caller's that mean the same inside: languages, colours, terminal, and our own. */
const PASSED = /^(LANG|LC_\w+|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|TZ|HOME|USER|LOGNAME|XDG_CACHE_HOME|VIVARIUM_\w+)$/;

/**
 * Runs the vivarium command inside the embedded host, joined to `io`. A signal before it runs there is an end too: the
 * start is given up, and nothing stays behind. Signals are taken from the call on.
 * Paths in `argv` must mean the same inside: see {@link toInnerPath}.
 *
 * @throws VmmError ERR_SETUP, ERR_EMBEDDED_HOST or what the command inside reported; AbortError.
 */
export async function runInEmbeddedHost(
  argv: readonly string[],
  io: CommandIo,
  options: CommandOptions = {},
): Promise<SessionEnd> {
  const size = io.terminalSize();
  const request = {
    kind: 'command' as const,
    argv,
    cwd: toInnerPath(io.cwd),
    env: passedEnvironment(io.env),
    stdinIsTerminal: io.stdinIsTerminal,
    stdoutIsTerminal: io.stdoutIsTerminal,
    stderrIsTerminal: io.stderrIsTerminal,
    ...(size === undefined ? {} : { terminalSize: size }),
  };
  const interrupted = new AbortController();
  const signal =
    options.signal === undefined ? interrupted.signal : AbortSignal.any([options.signal, interrupted.signal]);
  let interruptedBy: CommandSignal | undefined;
  const release = io.onSignal((name) => {
    interruptedBy = name;
    interrupted.abort();
  });
  let connection: HostConnection;
  let build;
  try {
    build = await bundle({ ...options, signal });
    connection = await connectHost({ ...options, env: io.env, signal });
  } catch (error) {
    if (interruptedBy !== undefined) return { by: 'signal', signal: interruptedBy };
    throw error;
  } finally {
    release();
  }
  return runSession(connection, { ...request, bundle: build }, io, options.signal, options.join);
}

export interface ScriptOptions extends EmbeddedOptions {
  readonly args?: readonly string[];
  /** Bytes, text or a stream for the script's stdin; at its end without it. */
  readonly stdin?: Uint8Array | string | Readable;
  /** Where its output goes besides the result, as it comes. */
  readonly onStdout?: (bytes: Uint8Array) => void;
  readonly onStderr?: (bytes: Uint8Array) => void;
  /** Added to what is passed on of this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface ScriptResult {
  /** The exit status; 128 + n when signal n ended it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const SCRIPT_OPTIONS = ['args', 'stdin', 'onStdout', 'onStderr', 'env', 'cwd', 'signal', 'log'];

/**
 * Runs an ECMAScript module inside the embedded host, where `import 'vivarium'` gives this build and /dev/kvm runs
 * stock Linux guests. `script` is a path, or `{ source }` with the module's text.
 *
 * @throws TypeError for wrong options; VmmError ERR_SETUP or ERR_EMBEDDED_HOST; AbortError, with the script ended.
 * @example const { status, stdout } = await embeddedHost.run({ source: `console.log(process.version)` });
 */
export async function runScript(
  script: string | { readonly source: string },
  options: ScriptOptions = {},
): Promise<ScriptResult> {
  checkOptionNames('embeddedHost.run', options, SCRIPT_OPTIONS);
  if (typeof script !== 'string' && typeof script?.source !== 'string') {
    throw new TypeError('embeddedHost.run: a path, or { source } with the text of a module, is wanted');
  }
  const cwd = resolve(options.cwd ?? '.');
  const [stdout, stderr] = [new Collector(options.onStdout), new Collector(options.onStderr)];
  const request: Omit<SessionRequest, 'bundle'> = {
    kind: 'script',
    argv: [...(typeof script === 'string' ? [toInnerPath(script, cwd)] : []), ...(options.args ?? [])],
    cwd: toInnerPath(cwd),
    env: { ...passedEnvironment(process.env), ...options.env },
    stdinIsTerminal: false,
    stdoutIsTerminal: false,
    stderrIsTerminal: false,
    ...(typeof script === 'string' ? {} : { source: script.source }),
  };
  const io: SessionIo = {
    stdin: readableOf(options.stdin),
    stdout,
    stderr,
    terminalSize: () => undefined,
    onResize: () => () => undefined,
    setRawMode: () => undefined,
    onSignal: () => () => undefined,
  };
  const build = await bundle(options);
  const connection = await connectHost(options);
  const end = await runSession(connection, { ...request, bundle: build }, io, options.signal);
  // Signals of this process are its own program's affair: `io` takes none.
  const status = end.by === 'process' ? end.status : 128 + constants.signals[end.signal];
  return { status, stdout: stdout.text(), stderr: stderr.text() };
}

/** The state of the user's embedded host, undefined when none runs. */
export async function hostStatus(options: { signal?: AbortSignal } = {}): Promise<HostStatus | undefined> {
  const connection = await connectRunning(options);
  connection?.link.destroy();
  return connection?.status;
}

/** Ends the user's embedded host with all that runs in it; resolves when it is gone, false when none ran. */
export async function stopHost(options: { signal?: AbortSignal } = {}): Promise<boolean> {
  const connection = await connectRunning(options);
  if (connection === undefined) return false;
  const gone = new Promise<void>((done) => connection.listen({ onFrame: () => undefined, onEnd: () => done() }));
  connection.link.sendMessage(ONLY_SESSION, { type: 'stop' });
  await gone;
  return true;
}

/** Starts the user's embedded host, if it does not run, and waits until it is ready. */
export async function startHost(options: EmbeddedOptions = {}): Promise<HostStatus> {
  const connection = await connectHost(options);
  if (connection.status.state === 'ready') {
    connection.link.destroy();
    return connection.status;
  }
  const message = await new Promise<(Message & { type: 'ready' | 'failed' }) | Error | undefined>((done) => {
    options.signal?.addEventListener('abort', () => connection.link.destroy(), { once: true });
    connection.listen({
      onFrame: (frame) => {
        const said = frame.type === FRAME_MESSAGE ? messageOf(frame) : undefined;
        if (said?.type === 'ready' || said?.type === 'failed') done(said);
      },
      onEnd: (error) => done(error),
    });
  });
  connection.link.destroy();
  if (options.signal?.aborted === true) throw new AbortError(options.signal);
  if (message instanceof Error || message === undefined) {
    throw new VmmError('ERR_EMBEDDED_HOST', 'the embedded host went away while it started', { cause: message });
  }
  if (message.type === 'failed') throw errorOf(message.failure);
  return message.status;
}

/**
 * Prepares all that the embedded host is started from, so that its first start needs no network and no building.
 *
 * @throws VmmError ERR_SETUP naming what is missing; AbortError.
 */
export async function prepareHostImage(options: EmbeddedOptions = {}): Promise<{ qemu: string; kernel: string }> {
  const qemu = await locateQemu();
  const image = await hostImage(options);
  await bundle(options);
  return { qemu: qemu.version, kernel: image.kernelRelease };
}

/** The part of an environment that goes with a command into the host. */
export function passedEnvironment(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  // Always named: without a name, node inside would compare /etc/localtime with every zone there is, file by file.
  const passed: Record<string, string> = { TZ: new Intl.DateTimeFormat().resolvedOptions().timeZone };
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && PASSED.test(name)) passed[name] = value;
  }
  return passed;
}

function readableOf(input: ScriptOptions['stdin']): Readable {
  if (input instanceof Readable) return input;
  const stream = new PassThrough();
  stream.end(input === undefined ? Buffer.alloc(0) : Buffer.from(input as Uint8Array));
  return stream;
}

/** Keeps what is written, and tells it on. */
class Collector extends Writable {
  readonly #chunks: Uint8Array[] = [];
  readonly #onBytes: ((bytes: Uint8Array) => void) | undefined;

  constructor(onBytes: ((bytes: Uint8Array) => void) | undefined) {
    super();
    this.#onBytes = onBytes;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: () => void): void {
    this.#chunks.push(chunk);
    this.#onBytes?.(chunk);
    callback();
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

/**
 * One command in a guest that has QEMU's agent alone: `guest-exec` starts it with all of its input, `guest-exec-status` is asked again and
 * again until it has ended, and then says all of its output. What that protocol has no word for is an error that says so.
 *
 *   collecting --end of stdin--> starting --pid--> running --exited--> delivering --written--> ended
 *
 * It runs in a session of its own where the guest has setsid(1), so that a signal, which is another command (kill), meets what it has started
 * too. Who leaves it has it killed, and asked for until it is gone: the agent keeps the output of what nobody asks for.
 */
import type { Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { sleep } from '../../base/sleep.js';
import type { ChildStatus } from '../protocol.js';
import type { RunResult, SessionStreams } from '../session.js';
import { booleanOf, bytesOf, integerOf, memberOf, membersOf, QemuCommandError, QemuProtocolError } from './answer.js';
import { collectInput, writeAll } from './command-streams.js';
import type { QemuAgentLink } from './link.js';

/** What the agent keeps of each output stream. */
export const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
/** Of both in base64, with what stands around them. */
const MAX_STATUS_BYTES = 2 * Math.ceil(MAX_OUTPUT_BYTES / 3) * 4 + 64 * 1024;
const START_MS = 60_000;
const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 1000;
const MAX_PID = 2 ** 31 - 1;
const SIGKILL = 9;
/** How often what was left is asked for. */
const LAST_LOOKS = 10;

export const OWN_AGENT = "vivarium's own agent, which is in the default initramfs, can do it";

export interface CommandOptions extends SessionStreams {
  readonly argv: readonly string[];
  /** NAME=VALUE each. */
  readonly env: readonly string[];
  readonly cwd: string;
  readonly signal?: AbortSignal | undefined;
}

export class QemuCommand {
  readonly #link: QemuAgentLink;
  readonly #clock: Clock;
  readonly #options: CommandOptions;
  readonly #givenUp = new AbortController();
  #pid: number | undefined;
  #pendingSignal: number | undefined;
  #signalError: Error | undefined;
  readonly #unheard = new AbortController();

  constructor(link: QemuAgentLink, clock: Clock, options: CommandOptions) {
    this.#link = link;
    this.#clock = clock;
    this.#options = options;
  }

  /** Once. @throws VmmError ERR_AGENT, ERR_TIMEOUT; AbortError */
  async run(): Promise<RunResult> {
    const { stdin, signal } = this.#options;
    const givenUp = this.#givenUp.signal;
    const either = signal === undefined ? givenUp : AbortSignal.any([signal, givenUp]);
    const input = await collectInput(stdin, either).catch((error: unknown) => {
      if (!givenUp.aborted) throw error;
    });
    // Before it was there: then that was its end.
    if (input === undefined) return ended({ kind: 'signalled', signal: this.#pendingSignal ?? SIGKILL });
    const pid = await this.#start(input);
    if (typeof pid !== 'number') return ended(pid);
    this.#pid = pid;
    if (this.#pendingSignal !== undefined) this.kill(this.#pendingSignal);
    try {
      return await this.#deliver(await this.#untilExited(pid, signal));
    } catch (error) {
      if (error instanceof AbortError) void this.#abandon(pid);
      throw error;
    }
  }

  /** To its process group, by number. A command that has not started is not started at all. */
  kill(signal: number): void {
    if (this.#pid === undefined) {
      this.#pendingSignal = signal;
      this.#givenUp.abort();
    } else {
      void this.#sendSignal(this.#pid, signal).catch((error: unknown) => {
        this.#signalError = cannotSignal(error);
        // An agent that does not answer to that does not tell of the command's end either.
        this.#unheard.abort();
      });
    }
  }

  /** Its pid, or why there is none. */
  async #start(input: Uint8Array): Promise<number | ChildStatus> {
    const { env, cwd } = this.#options;
    const argv =
      cwd === '/' ? this.#options.argv : ['/bin/sh', '-c', 'cd "$0" && exec "$@"', cwd, ...this.#options.argv];
    const rest = { env, input };
    try {
      return await this.#exec(['setsid', '--', ...argv], rest);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
    try {
      return await this.#exec(argv, rest);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === undefined) throw error;
      return { kind: 'not-started', errno };
    }
  }

  async #exec(argv: readonly string[], options: { env?: readonly string[]; input?: Uint8Array } = {}): Promise<number> {
    const [path, ...arg] = argv;
    const { env, input } = options;
    const data = input === undefined ? undefined : Buffer.from(input.buffer, input.byteOffset, input.length);
    const answer = await this.#link.request(
      'guest-exec',
      {
        path,
        arg,
        ...(env && { env }),
        ...(data && data.length > 0 && { 'input-data': data.toString('base64') }),
        'capture-output': true,
      },
      // Not to be aborted: what has started must be known by its number.
      { timeoutMs: START_MS },
    );
    return integerOf(membersOf(answer), 'pid', 1, MAX_PID);
  }

  /** What its last status says. Without a time of its own, since a guest may be paused. */
  async #untilExited(pid: number, signal: AbortSignal | undefined): Promise<Exited> {
    const unheard = this.#unheard.signal;
    const either = signal === undefined ? unheard : AbortSignal.any([signal, unheard]);
    try {
      for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 1.5, LONGEST_PAUSE_MS)) {
        const exited = await this.#look(pid, { signal: either, timeoutMs: Infinity });
        if (exited !== undefined) return exited;
        if (unheard.aborted) throw new AbortError(unheard);
        await sleep(this.#clock, pauseMs, either);
      }
    } catch (error) {
      if (this.#signalError === undefined || !(error instanceof AbortError) || signal?.aborted === true) throw error;
      // It may have ended just before it was to be told; a look that is not answered in time is no news either.
      const last = await this.#look(pid, { signal }).catch(() => undefined);
      if (last === undefined) throw this.#signalError;
      return last;
    }
  }

  async #look(
    pid: number,
    options: { signal?: AbortSignal | undefined; timeoutMs?: number },
  ): Promise<Exited | undefined> {
    const limits = { ...options, maxAnswerBytes: MAX_STATUS_BYTES };
    const status = membersOf(await this.#link.request('guest-exec-status', { pid }, limits));
    if (!booleanOf(status, 'exited')) return undefined;
    return {
      status: statusOf(status),
      stdout: bytesOf(status, 'out-data', MAX_OUTPUT_BYTES),
      stderr: bytesOf(status, 'err-data', MAX_OUTPUT_BYTES),
      isTruncated: memberOf(status, 'out-truncated') === true || memberOf(status, 'err-truncated') === true,
    };
  }

  async #deliver({ status, stdout, stderr, isTruncated }: Exited): Promise<RunResult> {
    const outputError =
      (await writeAll(this.#options.stdout, stdout)) ?? (await writeAll(this.#options.stderr, stderr)) ?? undefined;
    if (isTruncated) {
      const message = `the command printed more than ${MAX_OUTPUT_BYTES} bytes, which is what QEMU's agent keeps; the rest is lost`;
      throw new VmmError('ERR_AGENT', message, { cure: `have it write a file and fetch that in pieces; ${OWN_AGENT}` });
    }
    return { status, outputError };
  }

  /** @throws when there is no way to */
  async #sendSignal(pid: number, signal: number): Promise<void> {
    // The group, where it has one of its own.
    const script = 'kill -"$0" -"$1" 2>/dev/null || kill -"$0" "$1"';
    const killer = await this.#exec(['/bin/sh', '-c', script, String(signal), String(pid)]);
    const { status, stderr } = await this.#untilGone(killer);
    if (status.kind === 'exited' && status.code === 0) return;
    throw new Error(
      Buffer.from(stderr)
        .toString('latin1')
        .slice(0, 200)
        .replace(/[^ -~]/g, ' ')
        .trim(),
    );
  }

  async #untilGone(pid: number): Promise<Exited> {
    for (let looks = 0, pauseMs = FIRST_PAUSE_MS; looks < LAST_LOOKS; looks++, pauseMs *= 2) {
      const exited = await this.#look(pid, {});
      if (exited !== undefined) return exited;
      await sleep(this.#clock, pauseMs);
    }
    throw new Error('it has not ended');
  }

  /** Nobody waits any more. */
  async #abandon(pid: number): Promise<void> {
    try {
      await this.#sendSignal(pid, SIGKILL);
      await this.#untilGone(pid);
    } catch {
      // It can't be helped, and nobody is there to be told.
    }
  }
}

interface Exited {
  readonly status: ChildStatus;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly isTruncated: boolean;
}

function ended(status: ChildStatus): RunResult {
  return { status, outputError: undefined };
}

function statusOf(status: Readonly<Record<string, unknown>>): ChildStatus {
  if (memberOf(status, 'signal') !== undefined)
    return { kind: 'signalled', signal: integerOf(status, 'signal', 1, 64) };
  if (memberOf(status, 'exitcode') === undefined) throw new QemuProtocolError('a command that ended in no way');
  return { kind: 'exited', code: integerOf(status, 'exitcode', 0, 255) };
}

/** By GLib's words for why execve(2) failed; undefined for anything else that went wrong. */
function errnoOf(error: unknown): number | undefined {
  if (!(error instanceof QemuCommandError)) return undefined;
  const words = [
    ['No such file or directory', 2],
    ['Exec format error', 8],
    ['Permission denied', 13],
    ['Not a directory', 20],
  ] as const;
  return words.find(([text]) => error.description.includes(`(${text})`))?.[1];
}

function cannotSignal(cause: unknown): VmmError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new VmmError(
    'ERR_AGENT',
    `QEMU's agent has no way to send a signal but kill in the guest, which failed: ${why}`,
    {
      cause,
      cure: OWN_AGENT,
    },
  );
}

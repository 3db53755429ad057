/** `exec`: a command in a machine's guest on this command's own streams; its status is this one's. */
import { constants } from 'node:os';
import type { CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError } from '../base/errors.js';
import type { ControlWorld } from './control-world.js';
import { ExitStatus, statusOfChild, statusOfSignal } from './exit-status.js';
import { guestEnvironment } from './guest-environment.js';

export interface ExecCommandOptions {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string | undefined;
  /** For the agent in the guest. */
  readonly waitMs: number;
  readonly timeoutMs: number | undefined;
  readonly stdin: boolean;
  /** In a terminal of its own, of this one's size. */
  readonly terminal: boolean;
}

/** A signal goes to the command in the guest; when it comes once more, the command is killed. */
export async function execCommand(
  name: string,
  options: ExecCommandOptions,
  { io, world }: { io: CommandIo; world: ControlWorld },
): Promise<number> {
  const aborting = new AbortController();
  let last: CommandSignal | undefined;
  let tell: ((message: { signal?: number; resize?: { columns: number; rows: number } }) => void) | undefined;
  const stopListening = io.onSignal((signal) => {
    if (tell === undefined || last === signal) aborting.abort();
    else tell({ signal: constants.signals[signal] });
    last = signal;
  });
  const { argv, env, cwd, waitMs, timeoutMs, stdin } = options;
  const size = options.terminal ? (io.terminalSize() ?? { columns: 80, rows: 24 }) : undefined;
  const stopResizing = io.onResize(() => {
    const now = io.terminalSize();
    if (size !== undefined && now !== undefined) tell?.({ resize: now });
  });
  const isRaw = size !== undefined && stdin && io.stdinIsTerminal;
  try {
    const machine = await world.connect(name, aborting.signal);
    const isTyped = stdin && size === undefined && io.stdinIsTerminal;
    const { status, timedOut, outputError } = await machine.run({
      argv: [...argv],
      env: { ...guestEnvironment(io), ...env },
      ...(cwd !== undefined && { cwd }),
      waitMs,
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(stdin && { stdin: io.stdin }),
      ...(isTyped && { isTyped }),
      stdout: io.stdout,
      stderr: io.stderr,
      signal: aborting.signal,
      ...(size && { terminal: size }),
      onStart: (send) => {
        tell = send;
        if (isRaw) io.setRawMode(true);
      },
    });
    if (timedOut) {
      io.stderr.write(`vivarium: ${argv[0] ?? ''}: the time is over\n`);
      return ExitStatus.TIMEOUT;
    }
    if (outputError !== undefined) return statusOfSignal('SIGPIPE');
    if (status.kind === 'not-started') {
      const why =
        status.errno === 2 ? 'not found in the guest' : `can't be executed in the guest (errno ${status.errno})`;
      io.stderr.write(`vivarium: ${argv[0] ?? ''}: ${why}\n`);
    }
    return statusOfChild(status);
  } catch (error) {
    if (error instanceof AbortError && last !== undefined) return statusOfSignal(last);
    throw error;
  } finally {
    if (isRaw) io.setRawMode(false);
    stopResizing();
    stopListening();
  }
}

/** `-e NAME=VALUE`, or `-e NAME` for what it is here. */
export function parseEnv(
  texts: readonly string[],
  here: Readonly<Record<string, string | undefined>>,
  refuse: (what: string) => never,
): Record<string, string> {
  return Object.fromEntries(
    texts.map((text): [string, string] => {
      const at = text.indexOf('=');
      if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
      const value = at < 0 && text !== '' ? here[text] : undefined;
      return value === undefined
        ? refuse(`-e ${text}: NAME=VALUE is wanted, or the name of a variable that is set`)
        : [text, value];
    }),
  );
}

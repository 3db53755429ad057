/**
 * Runs a tool of the system (apt-get, dpkg-deb, cc) to its end and gives back what it printed.
 * No shell, stdin closed, the C locale, and an error that carries the tool's own last words.
 */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { AbortError, VmmError } from '../base/errors.js';

export interface ToolOptions {
  readonly cwd?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Called with every line of stdout and stderr as it comes. */
  readonly onLine?: (line: string) => void;
  /** One line for the error: what the user can do about a failure. */
  readonly cure?: string;
}

/**
 * Runs `file` with `args`; resolves to its stdout.
 *
 * @throws VmmError ERR_SETUP when the tool is missing or fails; AbortError when the signal fires (the tool is ended).
 */
export async function runTool(file: string, args: readonly string[], options: ToolOptions = {}): Promise<string> {
  throwIfAborted(options.signal);
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: 'C', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const onAbort = (): void => void child.kill('SIGTERM');
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    if (options.onLine !== undefined) {
      for (const stream of [child.stdout, child.stderr]) splitLines(stream, options.onLine);
    }
    const outcome = await new Promise<{ code: number | null; end: NodeJS.Signals | null } | Error>((resolve) => {
      child.once('error', resolve);
      child.once('close', (code, end) => resolve({ code, end }));
    });
    throwIfAborted(options.signal);
    if (outcome instanceof Error) {
      throw toolError(`${file} could not be started: ${outcome.message}`, options, outcome);
    }
    if (outcome.code !== 0) {
      const how = outcome.code === null ? `was ended by ${String(outcome.end)}` : `failed with status ${outcome.code}`;
      throw toolError(`'${[file, ...args].join(' ')}' ${how}${lastWords(stderr, stdout)}`, options);
    }
    return stdout;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortError(signal);
}

function toolError(message: string, options: ToolOptions, cause?: Error): VmmError {
  return new VmmError('ERR_SETUP', message, {
    ...(cause === undefined ? {} : { cause }),
    ...(options.cure === undefined ? {} : { cure: options.cure }),
  });
}

/** The last lines of what a tool said, errors first: enough to see the reason, not the whole log. */
function lastWords(stderr: string, stdout: string): string {
  const text = stderr.trim() === '' ? stdout : stderr;
  const lines = text.trim().split('\n').slice(-6).join('\n  ');
  return lines === '' ? '' : `:\n  ${lines}`;
}

function splitLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = '';
  stream.on('data', (text: string) => {
    const lines = (rest + text).split(/\r?\n|\r/);
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
  stream.on('end', () => {
    if (rest !== '') onLine(rest);
  });
}

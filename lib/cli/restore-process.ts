/**
 * `vivarium restore -d` as a process: how the dashboard brings a snapshot's machine up. The machine is in a process of its own and outlives both;
 * what the command says in between is handed on.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { AbortError, VmmError, type VmmErrorCode } from '../base/errors.js';
import type { RestoreOptions } from '../dashboard/index.js';

/** What stands before the arguments: this command, as it was started. */
const ownCommand = (): readonly string[] => [process.execPath, ...process.execArgv, process.argv[1] ?? ''];

/** @throws VmmError with what the command says; AbortError */
export async function restoreProcess(
  dir: string,
  name: string,
  { signal, onProgress }: RestoreOptions,
  [program = '', ...before]: readonly string[] = ownCommand(),
): Promise<void> {
  const child = spawn(program, [...before, 'restore', '-d', '--json', '--name', name, dir], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const stop = (): void => void child.kill('SIGTERM');
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  let failure: VmmError | undefined;
  const lines = createInterface({ input: child.stderr });
  lines.on('line', (line) => {
    const event = readEvent(line);
    if (event.event === 'error') failure = failureOf(event);
    else if (event.event !== 'exit') onProgress(textOf(event));
  });
  const ended = await new Promise<number | string>((resolve) => {
    child.once('error', ({ message }) => resolve(message));
    child.once('close', (code, killedBy) => resolve(code ?? killedBy ?? 'nothing'));
  });
  signal.removeEventListener('abort', stop);
  if (ended === 0) return;
  if (signal.aborted) throw new AbortError(signal);
  throw failure ?? new VmmError('ERR_CONTROL', `vivarium restore ended with ${ended}`);
}

interface RestoreEvent {
  readonly event?: unknown;
  readonly message?: unknown;
  readonly code?: unknown;
  readonly cure?: unknown;
  readonly bytesDone?: unknown;
  readonly bytesTotal?: unknown;
}

/** A line that is no event is its own message. */
function readEvent(line: string): RestoreEvent {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // What Node itself has to say.
  }
  return { event: 'log', message: line };
}

function failureOf({ message, code, cure }: RestoreEvent): VmmError {
  const known = typeof code === 'string' ? (code as VmmErrorCode) : 'ERR_CONTROL';
  return new VmmError(known, String(message), typeof cure === 'string' ? { cure } : {});
}

function textOf({ event, message, bytesDone, bytesTotal }: RestoreEvent): string {
  if (typeof bytesDone === 'number' && typeof bytesTotal === 'number' && bytesTotal > 0) {
    return `${Math.round((100 * bytesDone) / bytesTotal)} %`;
  }
  return typeof message === 'string' ? message : String(event);
}

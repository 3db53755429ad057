/**
 * The guest's console on the command's own streams: what the guest prints goes to stdout, what comes on stdin is typed
 * at it. A terminal is raw meanwhile, Ctrl-] leaves; it is given back whatever happens.
 */
import type { CommandIo } from '../base/command-io.js';
import { pumpOutput } from './pump-output.js';
import type { RunMachine } from './world.js';

/** Ctrl-], as telnet and virsh have it. */
export const LEAVE_BYTE = 0x1d;

/** What a key press, or the stream's end, means to the run. */
export type ConsoleEvent = 'left' | 'closed-output';

export interface ConsoleSession {
  /** Resolves when all of the console was written, or can't be. */
  readonly outputDone: Promise<void>;
  /** Gives the terminal back and lets stdin go. Idempotent. */
  close(): void;
}

/** How many bytes are typed at once: the receiver of the guest takes them at its own pace. */
const TYPE_BYTES = 4096;

export function openConsole(
  machine: RunMachine,
  io: CommandIo,
  onEvent: (event: ConsoleEvent) => void,
): ConsoleSession {
  const { stdin } = io;
  let closed = false;

  const onData = (chunk: Uint8Array | string): void => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    const leave = io.stdinIsTerminal ? bytes.indexOf(LEAVE_BYTE) : -1;
    const typed = leave < 0 ? bytes : bytes.subarray(0, leave);
    for (let at = 0; at < typed.length; at += TYPE_BYTES) machine.console.write(typed.subarray(at, at + TYPE_BYTES));
    if (leave < 0) return;
    close();
    onEvent('left');
  };
  // A terminal that goes away reads as an error; the hang-up that comes with it ends the run, a guest may run on.
  const onError = (): void => void stdin.pause();

  function close(): void {
    if (closed) return;
    closed = true;
    stdin.off('data', onData);
    stdin.pause();
    if (io.stdinIsTerminal) io.setRawMode(false);
  }

  if (io.stdinIsTerminal) io.setRawMode(true);
  stdin.on('error', onError);
  stdin.on('data', onData);
  stdin.resume();
  const outputDone = pumpOutput(machine.console.output, io.stdout).then((how) => {
    if (how === 'broken') onEvent('closed-output');
  });
  return { outputDone, close };
}

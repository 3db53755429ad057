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
export type ConsoleEvent =
  | 'left'
  | 'closed-output'
  /** More was typed on a terminal than is kept for a guest that takes nothing; it is dropped until the guest does. */
  | 'dropped-input';

export interface ConsoleSession {
  /** Resolves when all of the console was written, or can't be. */
  readonly outputDone: Promise<void>;
  /** Gives the terminal back and lets stdin go. Idempotent. */
  close(): void;
}

/** How many bytes are typed at once: the receiver of the guest takes them at its own pace. */
const TYPE_BYTES = 4096;
/** What is kept of a terminal's input: a terminal is read on, so that Ctrl-] is always seen. Pastes of this fit. */
const TERMINAL_WAITING_BYTES = 1024 * 1024;

export function openConsole(
  machine: RunMachine,
  io: CommandIo,
  onEvent: (event: ConsoleEvent) => void,
  onOutput: () => void,
): ConsoleSession {
  const { stdin } = io;
  let closed = false;

  const typist = new Typist(machine.console, () => {
    if (!closed && !io.stdinIsTerminal) stdin.resume();
  });
  let dropping = false;

  const onData = (chunk: Uint8Array | string): void => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    const leave = io.stdinIsTerminal ? bytes.indexOf(LEAVE_BYTE) : -1;
    type(leave < 0 ? bytes : bytes.subarray(0, leave));
    if (leave < 0) return;
    close();
    onEvent('left');
  };

  function type(bytes: Uint8Array): void {
    const room = typist.waitingBytes + bytes.length <= TERMINAL_WAITING_BYTES;
    if (room || !io.stdinIsTerminal) typist.type(bytes);
    else if (!dropping) onEvent('dropped-input');
    dropping = !room && io.stdinIsTerminal;
    // Anything but a terminal waits outside, where whoever writes it waits as well.
    if (typist.waitingBytes > 0 && !io.stdinIsTerminal) stdin.pause();
  }

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
  const outputDone = pumpOutput(heard(machine.console.output, onOutput), io.stdout).then((how) => {
    if (how === 'broken') onEvent('closed-output');
  });
  return { outputDone, close };
}

/** The same bytes; calls back for every chunk. */
async function* heard(source: AsyncIterable<Uint8Array>, onChunk: () => void): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    onChunk();
    yield chunk;
  }
}

/** Types at a console no faster than it takes what is typed. */
class Typist {
  readonly #console: RunMachine['console'];
  readonly #onEmpty: () => void;
  #waiting: Uint8Array[] = [];
  #held = false;
  waitingBytes = 0;

  /** `onEmpty` is called when all that had to wait was typed. */
  constructor(console: RunMachine['console'], onEmpty: () => void) {
    this.#console = console;
    this.#onEmpty = onEmpty;
  }

  type(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.waitingBytes += bytes.length;
    this.#pump();
  }

  #pump(): void {
    for (let chunk = this.#waiting[0]; chunk !== undefined && !this.#held; chunk = this.#waiting[0]) {
      const piece = chunk.subarray(0, TYPE_BYTES);
      const rest = chunk.subarray(piece.length);
      if (rest.length > 0) this.#waiting[0] = rest;
      else this.#waiting.shift();
      this.waitingBytes -= piece.length;
      if (!this.#console.write(piece)) this.#holdBack();
    }
  }

  #holdBack(): void {
    this.#held = true;
    void this.#console.drained().then(() => {
      this.#held = false;
      this.#pump();
      if (this.waitingBytes === 0) this.#onEmpty();
    });
  }
}

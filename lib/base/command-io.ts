/**
 * The terminal and the streams that a command works with, as a parameter: the process's own, or, inside the embedded
 * host, those of a process outside it. The command's code can't tell which.
 */
import type { Readable, Writable } from 'node:stream';

export type CommandSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGQUIT';

/** A byte stream both ways between a command inside the embedded host and the one outside that started it. */
export interface Channel {
  readonly input: Readable;
  readonly output: Writable;
}

export interface CommandIo {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Inside the embedded host only: as many as the command outside has given. */
  readonly channels?: readonly Channel[];
  readonly stdinIsTerminal: boolean;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  /** The working folder that relative paths count from. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Undefined when there is no terminal. */
  terminalSize(): { columns: number; rows: number } | undefined;
  /** Calls back when the terminal's size changes; returns what stops it. */
  onResize(callback: () => void): () => void;
  /** Puts the terminal on stdin into raw mode or back. Nothing happens when stdin is no terminal. */
  setRawMode(on: boolean): void;
  /** Takes a signal instead of dying of it, until the returned function is called. */
  onSignal(callback: (signal: CommandSignal) => void): () => void;
}

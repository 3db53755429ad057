/**
 * The process that holds a machine which was started with `-d`: it has no terminal, keeps the last of what the guest prints, writes what
 * it has to say itself into a bounded file, and tells who started it, on descriptor 3, when the machine runs.
 */
import { appendFileSync, closeSync, writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import type { CommandIo } from '../base/command-io.js';
import { OutputHub } from '../control/index.js';

const READY_FD = 3;
const MAX_LOG_BYTES = 1024 * 1024;

/** What the parent hears once the machine can be reached. */
export interface Ready {
  readonly name: string;
  readonly id: string;
  readonly pid: number;
}

export class Holder {
  readonly io: CommandIo;
  readonly output = new OutputHub();
  readonly #stderr: HolderLog;
  readonly #readyFd: number;
  #told = false;

  /** With a COMMAND its stderr is output too. */
  constructor(io: CommandIo, { hasCommand, readyFd = READY_FD }: { hasCommand: boolean; readyFd?: number }) {
    this.#readyFd = readyFd;
    this.#stderr = new HolderLog(io.stderr, hasCommand ? this.output : undefined);
    const own = Object.create(io) as { -readonly [Key in keyof CommandIo]: CommandIo[Key] };
    own.stdout = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.output.push(Uint8Array.from(chunk));
        done();
      },
    });
    own.stderr = this.#stderr;
    own.stdoutIsTerminal = own.stderrIsTerminal = own.stdinIsTerminal = false;
    own.terminalSize = () => undefined;
    this.io = own;
  }

  /** What is said from now on is also written there. */
  logTo(path: string): void {
    this.#stderr.path = path;
  }

  /** The machine runs: whoever started this need not wait any longer. */
  ready(told: Ready): void {
    if (this.#told) return;
    this.#told = true;
    this.#stderr.isAlone = true;
    try {
      writeSync(this.#readyFd, `${JSON.stringify(told)}\n`);
      closeSync(this.#readyFd);
    } catch {
      // Nobody waits any more.
    }
  }
}

class HolderLog extends Writable {
  path: string | undefined;
  /** Who started the process listens no more. */
  isAlone = false;
  readonly #parent: Writable;
  readonly #output: OutputHub | undefined;
  #bytes = 0;

  constructor(parent: Writable, output: OutputHub | undefined) {
    super();
    this.#parent = parent;
    this.#output = output;
    parent.on('error', () => undefined);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#bytes += chunk.length;
    if (this.path !== undefined && this.#bytes <= MAX_LOG_BYTES) {
      try {
        appendFileSync(this.path, chunk, { mode: 0o600 });
      } catch {
        // The folder was cleared: there is nobody to tell.
      }
    }
    if (this.isAlone) this.#output?.push(Uint8Array.from(chunk));
    else this.#parent.write(chunk);
    done();
  }
}

/**
 * The process that holds a machine which was started with `-d`: it has no terminal, keeps the last of what the guest prints, writes what
 * it has to say itself into a bounded file (holder-log.ts), and tells who started it, on descriptor 3, how far it has come and when
 * the machine runs: a line of JSON each.
 */
import { closeSync, writeSync } from 'node:fs';
import { Writable } from 'node:stream';
import type { CommandIo } from '../base/command-io.js';
import { OutputHub } from '../control/index.js';
import { HolderLog } from './holder-log.js';
import type { Progress, ProgressView } from './progress-bar.js';

const READY_FD = 3;

/** What the parent hears once the machine can be reached. */
export interface Ready {
  readonly name: string;
  readonly id: string;
  readonly pid: number;
}

/** What the parent may hear before. */
export interface Underway {
  readonly title: string;
  readonly progress: Progress;
}

/** What a line on descriptor 3 says. */
export type HolderLine = Ready | Underway;

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

  /** What is said from now on is also written there, as records. */
  logTo(path: string): Promise<void> {
    return this.#stderr.recordTo(path);
  }

  /** For who started this, in place of a bar here. Each hundredth, since it is one write. */
  progressView(title: string): ProgressView {
    let shown = -1;
    return {
      show: (progress) => {
        const { bytesDone, bytesTotal } = progress;
        const hundredths = bytesTotal > 0 ? Math.floor((100 * bytesDone) / bytesTotal) : 100;
        if (hundredths === shown || this.#told) return;
        shown = hundredths;
        this.#tell({ title, progress });
      },
      end: () => undefined,
    };
  }

  /** The machine runs: whoever started this need not wait any longer. */
  ready(told: Ready): void {
    if (this.#told) return;
    this.#told = true;
    this.#stderr.isAlone = true;
    this.#tell(told);
    try {
      closeSync(this.#readyFd);
    } catch {
      // It was closed with who waited.
    }
  }

  #tell(line: HolderLine): void {
    try {
      writeSync(this.#readyFd, `${JSON.stringify(line)}\n`);
    } catch {
      // Nobody waits any more.
    }
  }
}

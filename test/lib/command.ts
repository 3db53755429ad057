/**
 * Runs the built command (dist/command/main.js) as users do, each run under a watchdog that ends it and says what it saw.
 * Where this machine's KVM can't run a stock kernel the command goes through the embedded host by itself.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const MAIN = fileURLToPath(new URL('../../dist/command/main.js', import.meta.url));

/** How long a run may take on a machine that is busy and whose guests are emulated. */
const WATCHDOG_S = 240;

/** How far back a text may begin that `until` waits for, once it waits. */
const TAIL_CHARS = 16_384;

export interface Ended {
  /** The exit status; 128 + n when signal n ended the process itself. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: Buffer | string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** When the watchdog ends the run. */
  readonly watchdogS?: number;
}

export class Vivarium {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<Ended>;
  #stdout: Buffer[] = [];
  #stderr = '';
  /** The end of stdout, so that waiting for a text in much output does not look at all of it each time. */
  #tail = '';
  #onOutput: (() => void) | undefined;
  #over = false;

  /** Starts `program` with `args`; without `stdin` its stdin stays open for `type`. */
  constructor(program: string, args: readonly string[], options: RunOptions = {}) {
    const { NO_COLOR: _dropped, ...env } = process.env;
    this.child = spawn(program, args, {
      env: { ...env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.child.stdin.on('error', () => undefined);
    if (options.stdin !== undefined) this.child.stdin.end(options.stdin);
    this.child.stdout.on('data', (chunk: Buffer) => {
      this.#stdout.push(chunk);
      this.#tail = (this.#tail + chunk.toString('latin1')).slice(-Math.max(TAIL_CHARS, 2 * chunk.length));
      this.#onOutput?.();
    });
    this.child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
      this.#onOutput?.();
    });
    const { watchdogS = WATCHDOG_S } = options;
    const watchdog = setTimeout(() => {
      this.#stderr += `\n[ended by the test's watchdog after ${watchdogS} s]`;
      this.child.kill('SIGKILL');
    }, watchdogS * 1000);
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        clearTimeout(watchdog);
        this.#over = true;
        this.#onOutput?.();
        const status = code ?? 128 + (signal === 'SIGKILL' ? 9 : 15);
        resolve({ status, stdout: this.stdout, stderr: this.#stderr });
      });
    });
  }

  get stdout(): Buffer {
    return Buffer.concat(this.#stdout);
  }

  get stderr(): string {
    return this.#stderr;
  }

  type(text: string | Buffer): void {
    this.child.stdin.write(text);
  }

  /** Waits until stdout or stderr matches; the match. @throws Error with what was seen when the run ends before. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    let seen = this.stdout.toString('latin1');
    for (;;) {
      const match = pattern.exec(seen) ?? pattern.exec(this.#stderr);
      if (match) return match;
      if (this.#over) {
        throw new Error(`the run ended before it showed ${pattern}:\n${`${seen}\n${this.#stderr}`.slice(-4000)}`);
      }
      await new Promise<void>((resolve) => (this.#onOutput = resolve));
      seen = this.#tail;
    }
  }
}

/** Starts the command. */
export function start(args: readonly string[], options: RunOptions = {}): Vivarium {
  return new Vivarium(process.execPath, [MAIN, ...args], options);
}

/** Runs the command to its end; its stdin is at its end unless given. */
export function vivarium(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return start(args, { stdin: '', ...options }).ended;
}

/** Starts the command on a terminal of its own, of 100x30, typed at through `type`. */
export function onTerminal(args: readonly string[], options: RunOptions = {}): Vivarium {
  const words = [process.execPath, MAIN, ...args].map((word) => `'${word.replaceAll("'", String.raw`'\''`)}'`);
  const line = `stty rows 30 cols 100; ${words.join(' ')}; status=$?; echo "[status $status]"; stty -a | grep -Eo -- '-?(icanon|echo) '; exit $status`;
  return new Vivarium('script', ['-qefc', line, '/dev/null'], options);
}

/** The objects of `--json` among the lines of stderr. */
export function events(stderr: string): Record<string, unknown>[] {
  return stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/**
 * What a command says of itself on stderr: progress and notices for people, or events for programs (`--json`, one
 * object a line). It never writes to stdout, and nothing here ends the command when stderr is closed.
 */
import type { CommandIo } from '../base/command-io.js';
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import { VmmError } from '../base/errors.js';

export interface ReporterOptions {
  readonly quiet: boolean;
  readonly json: boolean;
}

/** An event of `--json`: its name, and what belongs to it. */
export type EventFields = Readonly<Record<string, unknown>>;

export class Reporter {
  readonly #io: CommandIo;
  readonly #clock: Clock;
  readonly #options: ReporterOptions;
  readonly #startNs: bigint;
  /** While the terminal is raw, lines must return the carriage themselves. */
  raw = false;

  constructor(io: CommandIo, clock: Clock, options: ReporterOptions) {
    this.#io = io;
    this.#clock = clock;
    this.#options = options;
    this.#startNs = clock.nowNs();
    // Whoever closed stderr wants to hear nothing more.
    io.stderr.on('error', () => undefined);
  }

  /** An event for programs; `progress` is the same for people at a terminal, `notice` for people anywhere. */
  event(name: string, fields: EventFields = {}, text: { progress?: string; notice?: string } = {}): void {
    if (this.#options.json) {
      const atMs = Number((this.#clock.nowNs() - this.#startNs) / 1_000_000n);
      this.#write(`${JSON.stringify({ event: name, atMs, ...fields })}\n`);
      return;
    }
    if (this.#options.quiet) return;
    if (text.notice !== undefined) this.#line(text.notice, 'plain');
    else if (text.progress !== undefined && this.#io.stderrIsTerminal) this.#line(text.progress, 'dim');
  }

  /** A failure: always said, also with `--quiet`. */
  failure(error: unknown): void {
    const { message, code, cure } = describe(error);
    if (this.#options.json) {
      this.event('error', { message, code, ...(cure === undefined ? {} : { cure }) });
      return;
    }
    this.#line(message, 'red');
    if (cure !== undefined) this.#line(`to cure it: ${cure}`, 'plain');
  }

  /** Something to know even with `--quiet`: why the guest ended. */
  warning(name: string, fields: EventFields, text: string): void {
    if (this.#options.json) this.event(name, fields);
    else this.#line(text, 'red');
  }

  /** Text of the guest's that belongs to a failure, as it is but for control characters. */
  quote(title: string, text: string): void {
    if (this.#options.json) {
      this.event('console', { title, text });
      return;
    }
    const lines = plainText(text).split('\n');
    while (lines.at(-1)?.trim() === '') lines.pop();
    if (lines.length === 0) return;
    this.#line(`${title}:`, 'plain');
    for (const line of lines) this.#write(`  ${line}${this.raw ? '\r' : ''}\n`);
  }

  /** A logger whose records become progress lines, warnings and events. */
  logger(): Logger {
    return {
      log: (level, message, fields) => {
        if (level === 'debug') return;
        if (level === 'info') this.event('progress', { message, ...fields }, { progress: message });
        else this.event('log', { level, message, ...fields }, { notice: message });
      },
    };
  }

  #line(text: string, style: 'plain' | 'dim' | 'red'): void {
    const styled = this.#io.stderrIsTerminal && (this.#io.env['NO_COLOR'] ?? '') === '';
    const codes = { plain: '', dim: '\x1b[2m', red: '\x1b[31m' };
    const end = this.raw ? '\r\n' : '\n';
    const body = `vivarium: ${text}`.split('\n').join(end);
    this.#write(styled && style !== 'plain' ? `${codes[style]}${body}\x1b[0m${end}` : `${body}${end}`);
  }

  #write(text: string): void {
    if (!this.#io.stderr.destroyed && this.#io.stderr.writable) this.#io.stderr.write(text);
  }
}

interface Description {
  readonly message: string;
  readonly code: string;
  readonly cure?: string;
}

/** What is said of an error. Only what nobody foresaw brings its stack. */
function describe(error: unknown): Description {
  if (error instanceof VmmError) {
    return { message: error.message, code: error.code, ...(error.cure === undefined ? {} : { cure: error.cure }) };
  }
  if (error instanceof TypeError || error instanceof RangeError) {
    return { message: error.message, code: 'ERR_ARGUMENT' };
  }
  if (error instanceof Error)
    return { message: `a failure of vivarium's own: ${error.stack ?? error.message}`, code: 'ERR_INTERNAL' };
  return { message: `a failure of vivarium's own: ${String(error)}`, code: 'ERR_INTERNAL' };
}

/** Without escape sequences and control characters: what a hostile guest wrote is shown on a terminal. */
export function plainText(text: string): string {
  return text
    .replace(/\r\n/g, '\n')
    .replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[ -/]*[0-~])/g, '')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}

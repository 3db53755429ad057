/**
 * stderr of the process that holds a machine which was started with `-d`: to who started it as long as he listens, then to the
 * output that `logs` shows, and always into the machine's `log`, a bounded file of pino's lines of JSON. A line that is an event of
 * `--json` gives the record its members.
 */
import { appendFileSync } from 'node:fs';
import { Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { OutputHub } from '../control/index.js';

const MAX_LOG_BYTES = 1024 * 1024;
/** A line that is longer becomes several records. */
const MAX_LINE_CHARS = 16 * 1024;

type Level = 'info' | 'warn' | 'error';
type WriteRecord = (level: Level, fields: object, message: string) => void;

export class HolderLog extends Writable {
  /** Who started the process listens no more. */
  isAlone = false;
  readonly #parent: Writable;
  readonly #output: OutputHub | undefined;
  readonly #decoder = new StringDecoder('utf8');
  #record: WriteRecord | undefined;
  #line = '';
  #bytes = 0;

  constructor(parent: Writable, output: OutputHub | undefined) {
    super();
    this.#parent = parent;
    this.#output = output;
    parent.on('error', () => undefined);
  }

  /** What is written from now on becomes records in the file. pino is loaded here, so that no other command pays for it. */
  async recordTo(path: string): Promise<void> {
    const { pino } = await import('pino');
    const log = pino({ base: { pid: process.pid } }, { write: (line: string) => this.#append(path, line) });
    this.#record = (level, fields, message) => log[level](fields, message);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#record !== undefined) this.#take(this.#decoder.write(chunk), this.#record);
    if (this.isAlone) this.#output?.push(Uint8Array.from(chunk));
    else this.#parent.write(chunk);
    done();
  }

  #take(text: string, record: WriteRecord): void {
    const lines = (this.#line + text).split('\n');
    this.#line = lines.pop()!;
    if (this.#line.length > MAX_LINE_CHARS) {
      lines.push(this.#line);
      this.#line = '';
    }
    for (const line of lines) {
      if (line === '') continue;
      // What a COMMAND writes goes this way too, and may look like anything.
      const event = this.#output === undefined ? eventIn(line) : undefined;
      if (event === undefined) record('info', {}, line);
      else record(event.level, event.fields, event.message);
    }
  }

  #append(path: string, line: string): void {
    this.#bytes += Buffer.byteLength(line);
    if (this.#bytes > MAX_LOG_BYTES) return;
    try {
      appendFileSync(path, line, { mode: 0o600 });
    } catch {
      // The folder was cleared: there is nobody to tell.
    }
  }
}

/** An event as Reporter writes it; undefined for any other text, which a COMMAND may have written. */
function eventIn(line: string): { level: Level; fields: object; message: string } | undefined {
  if (!line.startsWith('{"event":')) return undefined;
  let fields: { event: unknown; message?: unknown; level?: unknown };
  try {
    fields = JSON.parse(line) as typeof fields;
  } catch {
    return undefined;
  }
  const { message, level, ...more } = fields;
  const isError = level === 'error' || fields.event === 'error';
  return {
    level: isError ? 'error' : level === 'warn' ? 'warn' : 'info',
    fields: more,
    message: typeof message === 'string' ? message : String(fields.event),
  };
}

/** QEMU's guest agent and its port for tests: it answers as qemu-ga does unless a test tells it otherwise, also in ways that no agent should. */
import { SENTINEL } from './answer-reader.js';
import type { QemuAgentPort } from './port.js';

export interface FakeRequest {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
}

/** A text is sent as a line, bytes as they are; undefined: no answer. */
export type FakeAnswer = object | string | Uint8Array | undefined;

/** What the agent itself would answer. */
export const OWN = Symbol('own');

const COMMANDS = [
  'guest-sync-delimited',
  'guest-info',
  'guest-ping',
  'guest-exec',
  'guest-exec-status',
  'guest-shutdown',
  'guest-get-time',
  'guest-set-time',
];

/** What the fake's command came to, as in the answer to guest-exec-status. */
export interface FakeExit {
  readonly exitcode?: number;
  readonly signal?: number;
  readonly out?: string;
  readonly err?: string;
  readonly more?: object;
}

export class FakeQemuGa implements QemuAgentPort {
  isOpen = false;
  onOpen: ((isOpen: boolean) => void) | undefined;
  onReceive: ((bytes: Uint8Array) => void) | undefined;
  /** All requests in order. */
  readonly requests: FakeRequest[] = [];
  /** Names of commands that it does not allow. */
  readonly blocked = new Set<string>();
  /** In place of its own answer, where it gives one. */
  intercept: (request: FakeRequest) => FakeAnswer | typeof OWN = () => OWN;
  /** What a command comes to; undefined while it runs. */
  exit: (argv: readonly string[], request: FakeRequest) => FakeExit | undefined = () => ({ exitcode: 0 });
  /** While it is there, `send` takes no more until it resolves. */
  full: Promise<void> | undefined;
  readonly pieces: number[] = [];
  #line = '';
  #nextPid = 100;
  readonly #running = new Map<number, { argv: readonly string[]; request: FakeRequest }>();

  /** Requests to start a command, in order. */
  get argvs(): string[][] {
    return this.requests.filter(({ execute }) => execute === 'guest-exec').map(argvOf);
  }

  open(): void {
    this.isOpen = true;
    this.onOpen?.(true);
  }

  close(): void {
    this.isOpen = false;
    this.#line = '';
    this.onOpen?.(false);
  }

  /** To the host, as it is. */
  give(answer: FakeAnswer): void {
    if (answer === undefined) return;
    const isBytes = answer instanceof Uint8Array;
    this.onReceive?.(
      isBytes ? answer : Buffer.from(`${typeof answer === 'string' ? answer : JSON.stringify(answer)}\n`),
    );
  }

  async send(bytes: Uint8Array): Promise<void> {
    this.pieces.push(bytes.length);
    for (const byte of bytes) {
      if (byte === SENTINEL) {
        // What it had half read is an error to it.
        if (this.#line !== '') this.give({ error: { class: 'GenericError', desc: 'JSON parse error' } });
        this.#line = '';
      } else if (byte !== 0x0a) this.#line += String.fromCharCode(byte);
      else {
        const line = Buffer.from(this.#line, 'latin1').toString();
        this.#line = '';
        queueMicrotask(() => this.#serve(JSON.parse(line) as FakeRequest));
      }
    }
    await this.full;
  }

  #serve(request: FakeRequest): void {
    this.requests.push(request);
    const instead = this.intercept(request);
    this.give(instead === OWN ? this.#answer(request) : instead);
  }

  #answer(request: FakeRequest): FakeAnswer {
    const { execute, arguments: args = {} } = request;
    switch (execute) {
      case 'guest-sync-delimited':
        return syncAnswer(args['id']);
      case 'guest-info':
        return {
          return: {
            version: '7.2.0',
            supported_commands: COMMANDS.map((name) => ({ name, enabled: !this.blocked.has(name) })),
          },
        };
      case 'guest-ping':
      case 'guest-set-time':
        return { return: {} };
      case 'guest-exec': {
        const pid = this.#nextPid++;
        this.#running.set(pid, { argv: argvOf(request), request });
        return { return: { pid } };
      }
      case 'guest-exec-status':
        return this.#status(args['pid'] as number);
      case 'guest-shutdown':
        return undefined;
      default:
        return errorAnswer(`The command ${execute} has not been found`, 'CommandNotFound');
    }
  }

  #status(pid: number): FakeAnswer {
    const command = this.#running.get(pid);
    if (command === undefined) return errorAnswer("Invalid parameter 'pid'");
    const exit = this.exit(command.argv, command.request);
    if (exit === undefined) return { return: { exited: false } };
    this.#running.delete(pid);
    const { out, err, more, ...how } = exit;
    const texts = {
      ...(out !== undefined && { 'out-data': Buffer.from(out).toString('base64'), 'out-truncated': false }),
      ...(err !== undefined && { 'err-data': Buffer.from(err).toString('base64'), 'err-truncated': false }),
    };
    return { return: { exited: true, ...how, ...texts, ...more } };
  }
}

export function syncAnswer(id: unknown): Uint8Array {
  return Buffer.concat([Uint8Array.of(SENTINEL), Buffer.from(`${JSON.stringify({ return: id })}\n`)]);
}

export function errorAnswer(desc: string, errorClass = 'GenericError'): object {
  return { error: { class: errorClass, desc } };
}

function argvOf({ arguments: args = {} }: FakeRequest): string[] {
  return [args['path'] as string, ...((args['arg'] ?? []) as string[])];
}

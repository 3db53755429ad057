/**
 * Requests to QEMU's guest agent and their answers, one at a time and in order, as the agent serves them. Answers bear no number, so an answer
 * that was not waited for would be taken for the next one's: whenever one may still be on its way, the two ends get in step first.
 *
 *   out of step --0xff, guest-sync-delimited with a random id--> syncing --0xff, the same id--> in step --request--> asking
 *        ^  ^------- the time is over, or it was aborted --------------'                           ^--answer-----------'
 *        '---------- the port was opened; no answer, a late one, garbage, a line that is too long -----------'
 */
import { randomInt } from 'node:crypto';
import { hostClock, type Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { TurnQueue } from '../../base/turn-queue.js';
import { type Answer, parseAnswer, QemuCommandError, QemuProtocolError } from './answer.js';
import { type AnswerLine, AnswerReader, SENTINEL } from './answer-reader.js';
import type { QemuAgentPort } from './port.js';

/** Of an answer, where nothing else is said. */
export const MAX_ANSWER_BYTES = 256 * 1024;
/** What is handed to the port at once, so that little of a request lies in a snapshot. */
const PIECE_BYTES = 64 * 1024;
/** Below 2^53, and hardly ever the same again. */
const MAX_SYNC_ID = 2 ** 47;
const DEFAULT_TIMEOUT_MS = 10_000;

export interface RequestOptions {
  /** For the turn, getting in step and the answer together, in milliseconds; Infinity for no limit. Default 10 000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** A longer answer is dropped, and the request fails. Default 256 KiB. */
  readonly maxAnswerBytes?: number;
  /** What the agent says only when it has failed, as it does for guest-shutdown: then sending it is all. Default true. */
  readonly hasAnswer?: boolean;
}

/** What the next line is for. */
interface Waiting {
  line(line: AnswerLine): void;
  fail(error: Error): void;
}

export class QemuAgentLink {
  /** Called when the port was opened or closed in the guest. */
  onOpen: ((isOpen: boolean) => void) | undefined;
  readonly #port: QemuAgentPort;
  readonly #clock: Clock;
  readonly #makeId: () => number;
  readonly #turns = new TurnQueue();
  readonly #reader: AnswerReader;
  #isInStep = false;
  #waiting: Waiting | undefined;
  /** Resolves when the port takes more. */
  #sent: Promise<void> = Promise.resolve();
  #failure: Error | undefined;

  /** Takes the port's callbacks. To be made before the guest runs. `makeId` is for tests. */
  constructor(port: QemuAgentPort, options: { clock?: Clock; makeId?: () => number } = {}) {
    this.#port = port;
    this.#clock = options.clock ?? hostClock;
    this.#makeId = options.makeId ?? (() => randomInt(1, MAX_SYNC_ID));
    this.#reader = new AnswerReader(MAX_ANSWER_BYTES, {
      onLine: (line) => this.#received(line),
      onOverlong: () => this.#overlong(),
    });
    port.onOpen = (isOpen) => this.#opened(isOpen);
    port.onReceive = (bytes) => this.#reader.push(bytes);
  }

  /** A process in the guest has the port open. */
  get isOpen(): boolean {
    return this.#failure === undefined && this.#port.isOpen;
  }

  /**
   * What the agent answers to a command.
   *
   * @throws QemuCommandError for an error of the agent's; VmmError ERR_AGENT when nobody has the port open, it was closed, or what came is no
   *   answer; ERR_TIMEOUT; AbortError.
   */
  async request(command: string, args?: object, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
    if (signal?.aborted === true) throw new AbortError(signal);
    const limit = new AbortController();
    const timer =
      timeoutMs === Infinity
        ? undefined
        : this.#clock.setTimer(BigInt(Math.ceil(timeoutMs)) * 1_000_000n, () => limit.abort());
    const both = signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]);
    try {
      return await this.#turns.run(() => this.#ask(command, args, both, options), both);
    } catch (error) {
      if (!(error instanceof AbortError) || !limit.signal.aborted || signal?.aborted) throw error;
      throw new VmmError('ERR_TIMEOUT', `QEMU's agent in the guest: ${command}: no answer after ${timeoutMs} ms`);
    } finally {
      timer?.cancel();
    }
  }

  /** Nothing more is sent or taken; what waits rejects with `reason`. Idempotent. */
  close(reason: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#port.onOpen = this.#port.onReceive = undefined;
    this.#waiting?.fail(reason);
  }

  async #ask(
    command: string,
    args: object | undefined,
    signal: AbortSignal,
    options: RequestOptions,
  ): Promise<unknown> {
    const { maxAnswerBytes = MAX_ANSWER_BYTES, hasAnswer = true } = options;
    if (!this.#isInStep) await this.#getInStep(signal);
    const request = encodeRequest(command, args);
    this.#isInStep = false;
    // An error that it may answer with is not waited for.
    if (!hasAnswer) return this.#send(request, signal);
    const answered = this.#line(maxAnswerBytes, signal, (line) => parseAnswer(line.bytes));
    const answer = await this.#sendAndWait(request, answered, signal);
    if (answer.kind === 'return') return answer.value;
    throw new QemuCommandError(command, answer.errorClass, answer.description);
  }

  /** Until our own id comes back behind a sentinel; whatever else comes is of a conversation before this one. */
  async #getInStep(signal: AbortSignal): Promise<void> {
    const id = this.#makeId();
    const synced = this.#line(MAX_ANSWER_BYTES, signal, (line) => (isSyncAnswer(line, id) ? true : undefined), true);
    // The sentinel ends what may lie half read at the other end.
    const request = Buffer.concat([Uint8Array.of(SENTINEL), encodeRequest('guest-sync-delimited', { id })]);
    await this.#sendAndWait(request, synced, signal);
  }

  async #sendAndWait<T>(request: Uint8Array, answer: Promise<T>, signal: AbortSignal): Promise<T> {
    const givenUp = new AbortController();
    const sent = this.#send(request, AbortSignal.any([signal, givenUp.signal]));
    try {
      const [value] = await Promise.all([answer, sent]);
      return value;
    } catch (error) {
      // The next request follows no rest of this one, and takes no answer for it.
      givenUp.abort();
      await sent.catch(() => undefined);
      this.#waiting?.fail(error as Error);
      throw error;
    }
  }

  /** Bytes that the port has not taken are not followed by others. */
  async #send(request: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let at = 0; at < request.length; at += PIECE_BYTES) {
      await untilEither(this.#sent, signal);
      if (this.#failure !== undefined) throw this.#failure;
      if (!this.#port.isOpen) throw notThere();
      this.#sent = this.#port.send(request.subarray(at, at + PIECE_BYTES)).catch(() => undefined);
    }
  }

  /** The next line that `take` makes something of. With `goesOn` what breaks the protocol is passed over. */
  #line<T>(
    maxLineBytes: number,
    signal: AbortSignal,
    take: (line: AnswerLine) => T | undefined,
    goesOn = false,
  ): Promise<T> {
    const line = new Promise<T>((resolve, reject) => {
      const done = (): void => {
        this.#waiting = undefined;
        this.#reader.maxLineBytes = MAX_ANSWER_BYTES;
        signal.removeEventListener('abort', onAbort);
      };
      const fail = (error: Error): void => (done(), reject(error));
      const onAbort = (): void => fail(new AbortError(signal));
      if (this.#failure !== undefined) return reject(this.#failure);
      if (!this.#port.isOpen) return reject(notThere());
      if (signal.aborted) return reject(new AbortError(signal));
      signal.addEventListener('abort', onAbort, { once: true });
      this.#reader.maxLineBytes = maxLineBytes;
      this.#waiting = {
        line: (each) => {
          try {
            const value = take(each);
            if (value === undefined) return;
            done();
            // At once: another line may be in the same piece.
            this.#isInStep = true;
            resolve(value);
          } catch (error) {
            fail(error as Error);
          }
        },
        fail: (error) => {
          if (!goesOn || !(error instanceof QemuProtocolError)) fail(error);
        },
      };
    });
    // It may end while its request is still being sent.
    line.catch(() => undefined);
    return line;
  }

  #received(line: AnswerLine): void {
    if (this.#waiting !== undefined) this.#waiting.line(line);
    // Nobody asked.
    else this.#isInStep = false;
  }

  #overlong(): void {
    const error = new QemuProtocolError(`an answer of more than ${this.#reader.maxLineBytes} bytes`);
    if (this.#waiting !== undefined) this.#waiting.fail(error);
    else this.#isInStep = false;
  }

  #opened(isOpen: boolean): void {
    this.#isInStep = false;
    this.#reader.reset();
    if (!isOpen) this.#waiting?.fail(new VmmError('ERR_AGENT', "QEMU's agent in the guest went away"));
    this.onOpen?.(isOpen);
  }
}

/** One line. */
export function encodeRequest(command: string, args?: object): Uint8Array {
  return Buffer.from(`${JSON.stringify({ execute: command, ...(args && { arguments: args }) })}\n`);
}

function isSyncAnswer(line: AnswerLine, id: number): boolean {
  if (!line.isDelimited) return false;
  let answer: Answer;
  try {
    answer = parseAnswer(line.bytes);
  } catch {
    return false;
  }
  return answer.kind === 'return' && answer.value === id;
}

function notThere(): VmmError {
  return new VmmError('ERR_AGENT', "QEMU's agent is not there: no process in the guest has its port open", {
    cure: 'install qemu-guest-agent in the guest, and start it',
  });
}

function untilEither(sent: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new AbortError(signal));
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    void sent.then(() => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}

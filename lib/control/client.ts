/**
 * Requests to a machine's control socket: JSON, or streams both ways. Finds the socket by the machine's name and makes
 * typed errors again of what the other side says; knows no route.
 */
import { Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { AbortError, VmmError } from '../base/errors.js';
import { errorOf, failureIn } from './failures.js';
import {
  clearDead,
  defaultPlace,
  endedRecordOf,
  type MachinePlace,
  type MachineRecord,
  recordOf,
  socketOf,
} from './machine-folders.js';

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
}

/** A request whose body and answer are streams that go on at the same time. */
export interface StreamCall {
  /** What is sent; ended or destroyed by the caller. */
  readonly request: ClientRequest;
  /** The answer, once its first bytes are there. @throws as ControlClient.request */
  readonly answer: Promise<IncomingMessage>;
}

interface OpenOptions extends Omit<RequestOptions, 'body'> {
  readonly contentType?: string;
  /** Has the connection. Default: the client's. */
  readonly agent?: Agent;
}

const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/**
 * The client of the machine that runs under a name.
 *
 * @throws TypeError for what is no name; VmmError ERR_NO_MACHINE when none is there, with what is known of the last one.
 */
export function controlClient(name: string, place: MachinePlace = defaultPlace()): ControlClient {
  const record = recordOf(name, place);
  if (record === undefined) throw noMachine(name, place);
  return new ControlClient(record, place);
}

export function noMachine(name: string, place: MachinePlace): VmmError {
  const ended = endedRecordOf(name, place);
  const last = ended === undefined ? '' : `; the last one ended at ${ended.endedAt} (${ended.reason})`;
  return new VmmError('ERR_NO_MACHINE', `there is no machine named ${name}${last}`, {
    cure: 'vivarium ps tells which there are',
  });
}

export class ControlClient {
  readonly record: MachineRecord;
  readonly #place: MachinePlace;
  readonly #agent: Agent;

  /** `agent`: has the connections; by default each request has one of its own. */
  constructor(record: MachineRecord, place: MachinePlace, agent = new Agent({ keepAlive: false })) {
    this.record = record;
    this.#place = place;
    this.#agent = agent;
  }

  /**
   * The answer's JSON.
   *
   * @throws what the other side says; VmmError ERR_NO_MACHINE when nobody is there any more, ERR_STATE while the machine is not
   *   ready to be asked, ERR_CONTROL when it goes in the middle; AbortError.
   */
  async request<T>(method: 'GET' | 'POST' | 'PUT', path: string, options: RequestOptions = {}): Promise<T> {
    const { body } = options;
    const send = (agent = this.#agent): StreamCall => {
      const call = this.open(method, path, {
        ...options,
        agent,
        ...(body !== undefined && { contentType: 'application/json' }),
      });
      call.request.end(body === undefined ? undefined : JSON.stringify(body));
      return call;
    };
    const { request, answer } = send();
    const message = await answer.catch((error: unknown) => {
      // A kept connection may have ended while nothing was asked. A GET changes nothing, should somebody have seen it.
      if (method !== 'GET' || !request.reusedSocket || !wasCut(error)) throw error;
      return send(new Agent({ keepAlive: false })).answer;
    });
    return parse(await this.#all(message)) as T;
  }

  /** The answer's bytes. @throws as request() */
  async bytes(
    method: 'GET' | 'POST' | 'PUT',
    path: string,
    options: Omit<RequestOptions, 'body'> & { readonly bytes?: Uint8Array } = {},
  ): Promise<Buffer> {
    const { request, answer } = this.open(method, path, options);
    request.end(options.bytes);
    return this.#all(await answer);
  }

  /** Opens a request whose streams are the caller's. */
  open(
    method: 'GET' | 'POST' | 'PUT',
    path: string,
    { query = {}, signal, contentType, agent = this.#agent }: OpenOptions = {},
  ): StreamCall {
    const search = new URLSearchParams(
      Object.entries(query).flatMap(([name, value]): [string, string][] =>
        value === undefined ? [] : [[name, String(value)]],
      ),
    ).toString();
    if (signal?.aborted === true) throw new AbortError(signal);
    const request = httpRequest({
      socketPath: socketOf(this.record.name, this.#place),
      method,
      path: search === '' ? path : `${path}?${search}`,
      headers: { host: 'vivarium', ...(contentType !== undefined && { 'content-type': contentType }) },
      agent,
      ...(signal && { signal }),
    });
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      request.once('response', (message) => {
        if (message.statusCode === 200) return resolve(message);
        this.#all(message).then((bytes) => reject(refusalOf(message, bytes)), reject);
      });
      request.on('error', (error) => reject(this.#lost(error, signal)));
    });
    // Who only sends may never ask for it.
    answer.catch(() => undefined);
    return { request, answer };
  }

  async #all(message: IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of message as AsyncIterable<Buffer>) {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > MAX_ANSWER_BYTES) throw new VmmError('ERR_CONTROL', 'an answer without end');
      }
    } catch (error) {
      throw this.#lost(error, undefined);
    }
    return Buffer.concat(chunks);
  }

  /** It stands in listeners: what can't be cleared now is cleared by the next who looks. */
  #isDead(name: string): boolean {
    try {
      return clearDead(name, this.#place);
    } catch {
      return false;
    }
  }

  /** Why nobody answers. What a killed process has left is cleared on the way. */
  #lost(error: unknown, signal: AbortSignal | undefined): Error {
    if (error instanceof VmmError) return error;
    const { code, message, name: kind } = error as NodeJS.ErrnoException;
    if (kind === 'AbortError' || signal?.aborted === true) return new AbortError(signal);
    const { name } = this.record;
    if (code === 'ECONNREFUSED' || code === 'ENOENT') {
      if (this.#isDead(name)) return noMachine(name, this.#place);
      return new VmmError('ERR_STATE', `${name} is being started, or ends: it can't be asked now`);
    }
    return new VmmError('ERR_CONTROL', `the process of ${name} went away in the middle of a call: ${message}`, {
      cause: error,
    });
  }
}

function wasCut(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return code === 'ECONNRESET' || code === 'EPIPE';
}

function refusalOf({ statusCode }: IncomingMessage, bytes: Buffer): Error {
  const failure = failureIn(safely(bytes));
  if (failure !== undefined) return errorOf(failure);
  return new VmmError('ERR_CONTROL', `an answer of status ${statusCode ?? 0} that says nothing`);
}

function parse(bytes: Buffer): unknown {
  const value = safely(bytes);
  if (value === undefined) throw new VmmError('ERR_CONTROL', 'an answer that is no JSON');
  return value;
}

function safely(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}

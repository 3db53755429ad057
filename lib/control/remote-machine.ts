/**
 * A machine of another process of this user, by its name: what Machine offers, over its control socket. What a Machine answers at
 * once comes as a promise here. Paths are this process's; those for the embedded host are put in its words.
 */
import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { GuestEntry, GuestPath } from '../agent/guest-files.js';
import type { ListeningPort } from '../agent/guest-port.js';
import { AbortError, VmmError } from '../base/errors.js';
import { checkOptionNames } from '../base/options.js';
import { toInnerPath } from '../host/index.js';
import type { CallOptions, EndStatus, JsonValue, PauseOptions, Snapshot, StopOptions } from '../machine/index.js';
import type { SnapshotOptions, WaitForOptions } from '../machine/index.js';
import type { DeviceContract, RebindReport } from '../vsp/index.js';
import { controlClient, type ControlClient } from './client.js';
import { copyIn, copyOut, type CopyOptions } from './copy.js';
import type { MachineEvent } from './event-schemas.js';
import { defaultPlace, type MachinePlace, type MachineRecord } from './machine-folders.js';
import {
  listRemoteFolder,
  readRemoteFile,
  writeRemoteFile,
  type GuestCallOptions,
  type ReadFileOptions,
  type WriteFileOptions,
} from './remote-files.js';
import { runRemote, type RemoteRunOptions, type RemoteRunResult } from './remote-exec.js';
import type { CopyReport } from './tar-files.js';
import type { Backend, End, Stats, Summary } from './schemas.js';

/** How the guest ended, and what the command that held it exits with. */
export type RemoteEnd = End;

export interface ViewOutputOptions extends CallOptions {
  /** At most so much of what was shown before. */
  readonly tailBytes?: number;
  /** At most so many lines of that. */
  readonly tailLines?: number;
  /** Go on until the guest ends. */
  readonly follow?: boolean;
}

export interface WatchStatsOptions extends CallOptions {
  /** From 50. Default 1000. */
  readonly everyMs?: number;
  /** Also which pages of memory are written; that is noted only while somebody watches. */
  readonly writes?: boolean;
}

export interface RemoteConsole {
  /** Types at the console; resolves when the guest has taken all of it. */
  write(data: Uint8Array | string, call?: CallOptions): Promise<void>;
  /** What it shows, from what was kept on, until the guest ends. Who is slow loses the oldest, and is told so in it. */
  readonly output: AsyncIterable<Uint8Array>;
  /** Waits until what was kept, or comes, matches. @throws VmmError ERR_TIMEOUT, ERR_STATE when the guest ended first; AbortError */
  waitFor(pattern: RegExp, options?: WaitForOptions): Promise<RegExpExecArray>;
}

/** How far back a text may begin that `waitFor` finds across chunks. */
const WATCH_WINDOW = 8 * 1024;

export class RemoteMachine {
  readonly record: MachineRecord;
  readonly #client: ControlClient;
  #state: Summary['state'];

  constructor(client: ControlClient, { state }: Pick<Summary, 'state'>) {
    this.record = client.record;
    this.#client = client;
    this.#state = state;
  }

  get name(): string {
    return this.record.name;
  }

  /** As of the last answer; `summary()` asks. */
  get state(): Summary['state'] {
    return this.#state;
  }

  async summary(call: CallOptions = {}): Promise<Summary> {
    return this.#known(await this.#client.request<Summary>('GET', '/v1/machine', call));
  }

  /** @throws as Machine.start; VmmError ERR_NO_MACHINE, ERR_CONTROL */
  async start(call: CallOptions = {}): Promise<void> {
    this.#known(await this.#client.request<Summary>('POST', '/v1/start', { ...call, body: {} }));
  }

  async pause({ clock, signal }: PauseOptions = {}): Promise<void> {
    const body = clock === undefined ? {} : { clock };
    this.#known(await this.#client.request<Summary>('POST', '/v1/pause', { body, signal }));
  }

  async resume(call: CallOptions = {}): Promise<void> {
    this.#known(await this.#client.request<Summary>('POST', '/v1/resume', { ...call, body: {} }));
  }

  /** Presses the power button; a guest that has not ended in `timeoutMs` is killed. */
  async stop({ timeoutMs, signal }: StopOptions = {}): Promise<RemoteEnd> {
    const body = timeoutMs === undefined ? {} : { timeoutMs };
    return this.#over(await this.#client.request<End>('POST', '/v1/stop', { body, signal }));
  }

  async kill(call: CallOptions = {}): Promise<RemoteEnd> {
    return this.#over(await this.#client.request<End>('POST', '/v1/kill', { ...call, body: {} }));
  }

  /** @throws VmmError ERR_TIMEOUT after `timeoutMs`; AbortError */
  async wait({ timeoutMs, signal }: CallOptions & { readonly timeoutMs?: number } = {}): Promise<RemoteEnd> {
    return this.#over(await this.#client.request<End>('GET', '/v1/wait', { query: { timeoutMs }, signal }));
  }

  inspect(call: CallOptions = {}): Promise<JsonValue> {
    return this.#client.request('GET', '/v1/inspect', call);
  }

  stats(call: CallOptions = {}): Promise<Stats> {
    return this.#client.request('GET', '/v1/stats', call);
  }

  /** The counters in the text format of Prometheus. */
  async metrics(call: CallOptions = {}): Promise<string> {
    return (await this.#client.bytes('GET', '/v1/metrics', call)).toString();
  }

  /**
   * The counters at each beat until the guest has ended; of a reader that is slow, beats are left out.
   *
   * @throws VmmError ERR_NO_MACHINE, ERR_STATE; ERR_CONTROL when its process goes away; AbortError
   */
  async *watchStats(options: WatchStatsOptions = {}): AsyncGenerator<Stats, void, undefined> {
    yield* this.#linesOf<Stats>(await this.openStats(options), options.signal);
  }

  /**
   * What happens to it, from its state now to its end: changes of state, snapshots and backends that are asked for over its socket, its guest's
   * time, agents that say hello. A reader that is slow loses some, and gets an event of type 'lost'.
   *
   * @throws VmmError ERR_NO_MACHINE, ERR_STATE; ERR_CONTROL when its process goes away; AbortError
   * @example
   * for await (const event of box.events()) if (event.type === 'snapshot') console.log(event.what, event.dir);
   */
  async *events({ signal }: CallOptions = {}): AsyncGenerator<MachineEvent, void, undefined> {
    const { request, answer } = this.#client.open('GET', '/v1/events', { signal });
    request.end();
    const opened = { output: await answer, close: () => void request.destroy() };
    for await (const event of this.#linesOf<MachineEvent>(opened, signal)) {
      if (event.type === 'state') this.#state = event.state;
      yield event;
    }
  }

  /** The same as they come, a line of JSON each: for who only hands them on. */
  async openStats({ everyMs, writes, signal }: WatchStatsOptions = {}): Promise<{
    readonly output: Readable;
    readonly close: () => void;
  }> {
    const { request, answer } = this.#client.open('GET', '/v1/stats/watch', { query: { everyMs, writes }, signal });
    request.end();
    return { output: await answer, close: () => void request.destroy() };
  }

  readonly pit = {
    status: (call: CallOptions = {}): Promise<JsonValue> => this.#client.request('GET', '/v1/pit', call),
  };

  readonly memory = {
    /** A copy. @throws VmmError ERR_GUEST_MEMORY; TypeError for more than 16 MiB at once, of write() RangeError */
    read: async (gpa: number, length: number, call: CallOptions = {}): Promise<Uint8Array> =>
      this.#client.bytes('GET', '/v1/memory', { ...call, query: { gpa, lengthBytes: length } }),
    write: async (gpa: number, bytes: Uint8Array, call: CallOptions = {}): Promise<void> => {
      await this.#client.bytes('PUT', '/v1/memory', { ...call, query: { gpa }, bytes });
    },
  };

  /** @throws as Machine.snapshot */
  async snapshot(dir: string, options: Omit<SnapshotOptions, 'onProgress'> = {}): Promise<Snapshot> {
    const { signal, parent, ...more } = options;
    const body = { ...more, dir: this.path(dir), ...(parent !== undefined && { parent: this.path(parent) }) };
    const saved = await this.#client.request<Snapshot>('POST', '/v1/snapshots', { body, signal });
    // In the embedded host its name is another.
    return { ...saved, dir: resolve(dir) };
  }

  device(id: string): {
    contract(call?: CallOptions): Promise<DeviceContract>;
    rebind(backend: Backend, call?: CallOptions): Promise<RebindReport>;
  } {
    const at = `/v1/devices/${encodeURIComponent(id)}`;
    return {
      contract: (call = {}) => this.#client.request('GET', at, call),
      rebind: (backend, call = {}) => {
        const inside = 'path' in backend ? { ...backend, path: this.path(backend.path) } : backend;
        return this.#client.request('POST', `${at}/rebind`, { ...call, body: { backend: inside } });
      },
    };
  }

  /** What `vivarium logs` shows. */
  async logs({ tailBytes, tailLines, follow = false, signal }: ViewOutputOptions = {}): Promise<Readable> {
    const query = { follow, tailBytes, tailLines };
    const { request, answer } = this.#client.open('GET', '/v1/logs', { query, signal });
    request.end();
    return answer;
  }

  /** The console both ways, for whoever has a terminal. */
  async attach({ scrollbackBytes, signal }: CallOptions & { readonly scrollbackBytes?: number } = {}): Promise<{
    readonly input: Writable;
    readonly output: Readable;
    readonly close: () => void;
  }> {
    const { request, answer } = this.#client.open('POST', '/v1/console', {
      query: { scrollbackBytes },
      signal,
      contentType: 'application/octet-stream',
    });
    request.flushHeaders();
    return { input: request, output: await answer, close: () => void request.destroy() };
  }

  readonly console: RemoteConsole = {
    write: async (data, call = {}) => {
      await this.#client.bytes('POST', '/v1/console/input', { ...call, bytes: Buffer.from(data) });
    },
    output: { [Symbol.asyncIterator]: () => this.#outputOf() },
    waitFor: (pattern, options = {}) => this.#waitFor(pattern, options),
  };

  /** Runs a command in the guest. @throws VmmError ERR_AGENT, ERR_TIMEOUT when no agent answers; AbortError */
  run(options: RemoteRunOptions): Promise<RemoteRunResult> {
    return runRemote(this.#client, options);
  }

  /** Copies a file or folder into the guest. @throws as copyIn() of copy.ts */
  copyIn(from: string, to: string, options: CopyOptions = {}): Promise<CopyReport> {
    return copyIn(this, from, to, options);
  }

  /** And out of it. What the guest sends is held to the target. @throws as copyOut() of copy.ts */
  copyOut(from: string, to: string, options: CopyOptions = {}): Promise<CopyReport> {
    return copyOut(this, from, to, options);
  }

  /**
   * The bytes of a file in the guest, of at most 16 MiB; copyOut() takes larger ones. A path counts from /, and is bytes where it is no UTF-8.
   *
   * @throws GuestFileError with the guest's errno by name, such as ENOENT, EISDIR, EACCES; VmmError ERR_TIMEOUT, ERR_AGENT when no agent
   *   answers; TypeError, RangeError for what is no path; AbortError
   */
  readFile(path: GuestPath, options: ReadFileOptions = {}): Promise<Uint8Array> {
    return readRemoteFile(this.#client, path, options);
  }

  /** Makes a file in the guest of at most 16 MiB; what stood in it is gone, also when it fails in the middle. @throws as readFile() */
  writeFile(path: GuestPath, data: Uint8Array | string, options: WriteFileOptions = {}): Promise<void> {
    return writeRemoteFile(this.#client, path, data, options);
  }

  /** What is in a folder of the guest, by name. @throws as readFile() */
  list(path: GuestPath, options: GuestCallOptions = {}): Promise<GuestEntry[]> {
    return listRemoteFolder(this.#client, path, options);
  }

  /**
   * Waits until something in the guest listens on a TCP port, for `timeoutMs` (default 30 000, Infinity: until the guest ends); an agent that
   * is not there yet is waited for as well. Nothing is connected to.
   *
   * @throws RangeError for what is no port; VmmError ERR_TIMEOUT, ERR_AGENT when the guest ends; GuestFileError where it can't be seen;
   *   AbortError
   */
  async waitForPort(port: number, options: WaitForOptions = {}): Promise<ListeningPort> {
    checkOptionNames('waitForPort', options, ['timeoutMs', 'signal']);
    const { timeoutMs = 30_000, signal } = options;
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new RangeError(`port: ${port} is not between 1 and 65535`);
    const query = { port, ...(timeoutMs !== Infinity && { timeoutMs: Math.ceil(timeoutMs) }) };
    return this.#client.request('GET', '/v1/wait/port', { query, signal });
  }

  /** A path of this process as the machine's own process reads it. */
  path(path: string): string {
    return this.record.host === 'embedded' ? toInnerPath(path) : resolve(path);
  }

  /** Until the stream's end, or the caller leaves. @throws VmmError ERR_CONTROL, AbortError */
  async *#linesOf<T>(
    { output, close }: { readonly output: Readable; readonly close: () => void },
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, undefined> {
    // What a stream says that is left in the middle concerns nobody.
    output.on('error', () => undefined);
    try {
      for await (const line of linesOf(output)) yield JSON.parse(line) as T;
    } catch (cause) {
      if (signal?.aborted === true) throw new AbortError(signal);
      throw new VmmError('ERR_CONTROL', `the process of ${this.name} went away`, { cause });
    } finally {
      close();
    }
  }

  async *#outputOf(signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    const { output, close } = await this.attach(signal === undefined ? {} : { signal });
    try {
      yield* output as AsyncIterable<Uint8Array>;
    } finally {
      close();
    }
  }

  async #waitFor(pattern: RegExp, options: WaitForOptions): Promise<RegExpExecArray> {
    checkOptionNames('waitFor', options, ['timeoutMs', 'signal']);
    const { timeoutMs = 30_000, signal } = options;
    const search = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ''));
    const limit = AbortSignal.timeout(timeoutMs);
    const decoder = new TextDecoder();
    let window = '';
    try {
      for await (const bytes of this.#outputOf(signal ? AbortSignal.any([signal, limit]) : limit)) {
        window += decoder.decode(bytes, { stream: true });
        const match = search.exec(window);
        if (match) return match;
        window = window.slice(-WATCH_WINDOW);
      }
    } catch (error) {
      if (signal?.aborted === true) throw new AbortError(signal);
      if (!limit.aborted) throw error;
      throw new VmmError('ERR_TIMEOUT', `no ${pattern} on the console in ${timeoutMs} ms: ${lastLines(window)}`);
    }
    throw new VmmError('ERR_STATE', `the machine ended before its console showed ${pattern}: ${lastLines(window)}`);
  }

  #known(summary: Summary): Summary {
    this.#state = summary.state;
    return summary;
  }

  #over(end: End): RemoteEnd {
    this.#state = end.reason === 'failed' ? 'failed' : 'stopped';
    return end;
  }
}

/** Whole ones. */
async function* linesOf(stream: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

function lastLines(text: string): string {
  return JSON.stringify(text.split('\n').slice(-8).join('\n').slice(-800));
}

export interface ConnectOptions extends CallOptions {
  readonly place?: MachinePlace;
}

/**
 * A machine of this user by its name, wherever its process is.
 *
 * @throws TypeError for what is no name; VmmError ERR_NO_MACHINE when there is none, ERR_STATE while it is being started; AbortError
 * @example
 * const vm = await connect('box');
 * await vm.pause();
 */
export async function connect(
  name: string,
  { place = defaultPlace(), signal }: ConnectOptions = {},
): Promise<RemoteMachine> {
  const client = controlClient(name, place);
  const summary = await client.request<Summary>('GET', '/v1/machine', { signal });
  return new RemoteMachine(client, summary);
}

export type { EndStatus };

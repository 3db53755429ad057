/**
 * A machine to be controlled, played by the test: its guest prints, takes what is typed and ends when told; an agent of the test's
 * is on its channel. And the ways to it: a place for names that is the test's own, and a server on real sockets.
 */
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { FakeAgent, FakeChannel, type FakeProcess } from '../agent/fake-agent.js';
import type { FakeQemuGa } from '../agent/qemu/fake-qemu-ga.js';
import { AbortError, VmmError } from '../base/errors.js';
import { silentLogger } from '../base/logger.js';
import { StateHolder } from '../machine/state-holder.js';
import type { PitEvents } from '../time/index.js';
import type { EndStatus, MachineCounters, Snapshot, SnapshotOptions } from '../machine/index.js';
import { lockFile } from '../memory/index.js';
import { untilAborted } from '../base/turn-queue.js';
import type { MachinePlace } from './machine-folders.js';
import type { ControlledMachine } from './target.js';

export class FakeControlled implements ControlledMachine {
  readonly name: string;
  readonly channel = new FakeChannel();
  readonly agent: FakeAgent;
  /** With one the machine has a port for QEMU's agent, which opens it when it is told to. */
  readonly qemuAgentPort: FakeQemuGa | undefined;
  readonly calls: string[] = [];
  typed = '';
  /** While true the guest takes no more of what is typed than this once. */
  consoleIsFull = false;
  /** The guest does not listen to its power button. */
  isDeaf = false;
  onSnapshot: (dir: string, options: SnapshotOptions) => Promise<Snapshot> = (dir) =>
    Promise.resolve({ dir, id: 'abc', stats: { pauseMs: 1 } as Snapshot['stats'] });
  readonly bytes = new Uint8Array(4096);
  readonly #output = new PassThrough({ highWaterMark: 2 ** 30 });
  #onDrain: (() => void)[] = [];
  #end!: (end: EndStatus) => void;
  readonly #ended = new Promise<EndStatus>((resolve) => (this.#end = resolve));

  constructor(name = 'box', onProcess: (process: FakeProcess) => void = () => undefined, qemuAgentPort?: FakeQemuGa) {
    this.name = name;
    this.qemuAgentPort = qemuAgentPort;
    this.state = 'running';
    this.agent = new FakeAgent(this.channel, onProcess);
  }

  readonly console = {
    write: (data: Uint8Array | string): boolean => {
      this.typed += Buffer.from(data).toString('latin1');
      return !this.consoleIsFull;
    },
    drained: (): Promise<void> =>
      this.consoleIsFull ? new Promise((resolve) => this.#onDrain.push(resolve)) : Promise.resolve(),
    output: this.#output as AsyncIterable<Uint8Array>,
  };

  readonly memory = {
    sizeBytes: this.bytes.length,
    read: (gpa: number, length: number): Uint8Array => {
      if (gpa + length > this.bytes.length) throw new VmmError('ERR_GUEST_MEMORY', 'outside');
      return this.bytes.slice(gpa, gpa + length);
    },
    write: (gpa: number, bytes: Uint8Array): void => this.bytes.set(bytes, gpa),
    watchWrites: () => {
      this.calls.push('watchWrites');
      return {
        take: () => {
          if (!this.hasBoard) throw new VmmError('ERR_CLOSED', 'vm: it was closed');
          return {
            pages: this.written.reduce((sum, pages) => sum + pages, 0),
            byGroup: Uint8Array.from(this.written),
          };
        },
        close: () => void this.calls.push('unwatch'),
      };
    },
  };

  /** False: what it writes can't be looked at. */
  hasBoard = true;
  /** What each look at its writes finds, by group. */
  written: number[] = [];

  readonly pit = {
    status: () => ({ phase: 'nominal', programmedHz: 250 }),
    on: <K extends keyof PitEvents>(name: K, listener: (event: PitEvents[K]) => void): (() => void) => {
      this.#pit.on(name, listener);
      return () => void this.#pit.off(name, listener);
    },
  };
  readonly #pit = new EventEmitter();

  /** The guest's time has an event. */
  pitEvent<K extends keyof PitEvents>(name: K, event: PitEvents[K]): void {
    this.#pit.emit(name, event);
  }

  readonly #states = new StateHolder(silentLogger);
  readonly onState = this.#states.on;

  get state(): ControlledMachine['state'] {
    return this.#states.state;
  }

  set state(state: ControlledMachine['state']) {
    this.#states.state = state;
  }

  /** The guest prints. */
  print(text: string | Uint8Array): void {
    this.#output.write(text);
  }

  /** The guest takes what was typed. */
  drainConsole(): void {
    this.consoleIsFull = false;
    for (const resolve of this.#onDrain.splice(0)) resolve();
  }

  end(end: EndStatus): void {
    this.state = end.reason === 'failed' ? 'failed' : 'stopped';
    this.#output.end();
    this.drainConsole();
    this.#end(end);
  }

  start(): Promise<void> {
    if (this.state === 'running') return Promise.reject(new VmmError('ERR_STATE', `${this.name} runs already`));
    return this.#becomes('start', 'running');
  }

  pause(): Promise<void> {
    return this.#becomes('pause', 'paused');
  }

  resume(): Promise<void> {
    if (this.state !== 'paused') return Promise.reject(new VmmError('ERR_STATE', `${this.name} is not paused`));
    return this.#becomes('resume', 'running');
  }

  async stop({ timeoutMs = 30_000, signal }: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<EndStatus> {
    this.calls.push('stop');
    if (!this.isDeaf) this.end({ reason: 'poweroff' });
    else if (timeoutMs === 0) throw new VmmError('ERR_TIMEOUT', 'the guest did not power off');
    return this.wait(signal && { signal });
  }

  kill(): Promise<EndStatus> {
    this.calls.push('kill');
    this.end({ reason: 'killed' });
    return this.#ended;
  }

  wait({ signal }: { signal?: AbortSignal } = {}): Promise<EndStatus> {
    return untilAborted(this.#ended, signal);
  }

  snapshot(dir: string, options: SnapshotOptions = {}): Promise<Snapshot> {
    this.calls.push('snapshot');
    return Promise.race([
      this.onSnapshot(dir, options),
      new Promise<never>((_resolve, reject) => {
        const abort = (): void => {
          this.calls.push('snapshot aborted');
          reject(new AbortError(options.signal));
        };
        options.signal?.addEventListener('abort', abort, { once: true });
      }),
    ]);
  }

  device(id: string): ReturnType<ControlledMachine['device']> {
    if (id !== 'root') throw new RangeError(`there is no device '${id}'`);
    return {
      contract: { class: 'block', functions: {} },
      rebind: (backend) => {
        this.calls.push(`rebind ${JSON.stringify((backend as { describe(): unknown }).describe())}`);
        return Promise.resolve({ holdNs: 1, drainNs: 0, held: 0 });
      },
    };
  }

  counters(): MachineCounters {
    const none = { answeredNatively: 0n, answeredByScript: 0n, threadCpuNs: 0n };
    return { cpus: [{ id: 0, counters: { ...none, exits: 7n, kicks: 1n, byReason: { io: 7n } } }], devices: new Map() };
  }

  inspect(): unknown {
    return { name: this.name, state: this.state, cpus: [{ id: 0, counters: { exits: '7', kicks: '1' } }] };
  }

  #becomes(call: string, state: ControlledMachine['state']): Promise<void> {
    this.calls.push(call);
    this.state = state;
    return Promise.resolve();
  }
}

/** A place for names that nothing else has; `done` removes it. */
export function ownPlace(): MachinePlace & { done(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-names-'));
  return { folder, lock: lockFile, done: () => rmSync(folder, { recursive: true, force: true }) };
}

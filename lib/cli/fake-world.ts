/**
 * A machine, a world and the streams of a command without any of them being real, for tests of the commands: the test
 * plays the guest. Console and channel behave as the real ones do, as far as a command can see.
 */
import { type Duplex, PassThrough, Writable } from 'node:stream';
import { FakeAgent, FakeChannel, type FakeProcess } from '../agent/fake-agent.js';
import { ManualClock } from '../base/clock.js';
import type { Channel, CommandIo, CommandSignal } from '../base/command-io.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { Fence } from '../base/fence.js';
import type { SessionEnd } from '../host/index.js';
import type { DescribedSnapshot } from '../machine/index.js';
import type { EndStatus } from '../machine/status.js';
import type { EndToRemember } from '../control/index.js';
import type { HolderProcess } from './detach-command.js';
import type { Underway } from './holder.js';
import type { HolderFence } from './fence-launch.js';
import type { NicChoice } from './nic-option.js';
import type { NameClaim, OpenControl } from './run-control.js';
import type { DiskChoice } from './disk-option.js';
import type { ControlWishes, HostChoice, LentNics, RestoreMachineOptions } from './world.js';
import type { RunMachine, RunMachineOptions, RunWorld } from './world.js';

/** A stream that keeps what it is given. */
export class Collected extends Writable {
  #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#chunks.push(Buffer.from(chunk));
    done();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.bytes.toString();
  }

  /** The objects of `--json`. */
  get events(): Record<string, unknown>[] {
    return this.text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}

export interface FakeIoOptions {
  readonly terminal?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdout?: Writable;
  readonly cwd?: string;
}

/** Streams and terminal of a command, in the test's hand. */
export class FakeIo implements CommandIo {
  readonly stdin = new PassThrough();
  readonly collected = new Collected();
  readonly stdout: Writable;
  readonly stderr = new Collected();
  readonly stdinIsTerminal: boolean;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Every change of the terminal's mode. */
  readonly rawModes: boolean[] = [];
  /** Also of objects that stand before this one, as a holder's. */
  readonly takers = new Set<(signal: CommandSignal) => void>();

  constructor(options: FakeIoOptions = {}) {
    this.stdinIsTerminal = this.stdoutIsTerminal = this.stderrIsTerminal = options.terminal ?? false;
    this.env = options.env ?? {};
    this.stdout = options.stdout ?? this.collected;
    this.cwd = options.cwd ?? '/';
  }

  terminalSize(): { columns: number; rows: number } | undefined {
    return this.stdoutIsTerminal ? { columns: 100, rows: 30 } : undefined;
  }

  onResize(): () => void {
    return () => undefined;
  }

  setRawMode(on: boolean): void {
    this.rawModes.push(on);
  }

  onSignal(callback: (signal: CommandSignal) => void): () => void {
    this.takers.add(callback);
    return () => void this.takers.delete(callback);
  }

  /** Whether a signal would be taken; otherwise it would end the process. */
  get takesSignals(): boolean {
    return this.takers.size > 0;
  }

  signal(signal: CommandSignal): void {
    for (const taker of [...this.takers]) taker(signal);
  }
}

export class FakeMachine implements RunMachine {
  readonly options: RunMachineOptions;
  readonly channel = new FakeChannel();
  readonly agent: FakeAgent;
  readonly calls: string[] = [];
  typed = '';
  /** While true the guest takes no more of what is typed than this once. */
  consoleIsFull = false;
  #onConsoleDrain: (() => void)[] = [];
  readonly #output = new PassThrough();
  #text = '';
  #end!: (status: EndStatus) => void;
  readonly #ended: Promise<EndStatus>;
  /** A CPU that can't be taken out of the guest. */
  pauseHangs = false;
  onStart: (() => void) | undefined;
  onPowerButton: (() => void) | undefined;

  constructor(options: RunMachineOptions, onProcess: (process: FakeProcess) => void) {
    this.options = options;
    this.agent = new FakeAgent(this.channel, onProcess);
    this.#ended = new Promise((resolve) => (this.#end = resolve));
  }

  readonly console = ((machine: FakeMachine) => ({
    write(data: Uint8Array | string): boolean {
      machine.typed += Buffer.from(data).toString('latin1');
      return !machine.consoleIsFull;
    },
    drained(): Promise<void> {
      if (!machine.consoleIsFull) return Promise.resolve();
      return new Promise((resolve) => machine.#onConsoleDrain.push(resolve));
    },
    get output(): AsyncIterable<Uint8Array> {
      return machine.#output as AsyncIterable<Uint8Array>;
    },
    get text(): string {
      return machine.#text;
    },
  }))(this);

  /** The guest prints. */
  print(text: string | Uint8Array): void {
    this.#output.write(text);
    this.#text += Buffer.from(text).toString();
  }

  /** The guest has taken what was typed, and takes more. */
  drainConsole(): void {
    this.consoleIsFull = false;
    for (const resolve of this.#onConsoleDrain.splice(0)) resolve();
  }

  /** The guest ends. */
  end(status: EndStatus): void {
    this.#output.end();
    this.#end(status);
  }

  start(): Promise<void> {
    this.calls.push('start');
    this.onStart?.();
    return Promise.resolve();
  }

  pause(): Promise<void> {
    this.calls.push('pause');
    return this.pauseHangs ? new Promise(() => undefined) : Promise.resolve();
  }

  inspect(): unknown {
    return { cpus: [{ id: 0, mpState: 0, regs: { rip: '0x1234', rflags: '0x2' } }] };
  }

  async stop(options: { signal?: AbortSignal } = {}): Promise<EndStatus> {
    this.calls.push('stop');
    this.onPowerButton?.();
    return new Promise((resolve, reject) => {
      options.signal?.addEventListener('abort', () => reject(new AbortError(options.signal)), { once: true });
      void this.#ended.then(resolve);
    });
  }

  kill(): Promise<EndStatus> {
    this.end({ reason: 'killed' });
    return this.#ended;
  }

  wait(): Promise<EndStatus> {
    return this.#ended;
  }

  async close(): Promise<void> {
    this.calls.push('close');
    await this.kill();
  }
}

/** A world whose guest is played by `guest`, called when the machine starts. */
export class FakeWorld implements RunWorld {
  readonly clock = new ManualClock();
  inside = false;
  choice: HostChoice = { host: 'native', reason: 'it runs Linux' };
  machine: FakeMachine | undefined;
  /** Thrown by createMachine. */
  createError: Error | undefined;
  /** Images that are locked now. */
  readonly locked: string[] = [];
  /** Nics whose networks are open now. */
  readonly lent: string[] = [];
  /** Nics whose networks were asked for. */
  readonly lentChoices: NicChoice[] = [];
  /** Thrown by lendNics. */
  lendError: Error | undefined;
  readonly forwarded: string[][] = [];
  onForward: (io: CommandIo) => Promise<SessionEnd> = () => Promise.resolve({ by: 'process', status: 0 });
  onProcess: (process: FakeProcess) => void = () => undefined;
  readonly #guest: (machine: FakeMachine) => void;

  constructor(guest: (machine: FakeMachine) => void = () => undefined) {
    this.#guest = guest;
  }

  chooseHost(): Promise<HostChoice> {
    return Promise.resolve(this.choice);
  }

  defaultKernel() {
    return Promise.resolve({ path: '/cache/vmlinuz', release: '6.1.0-fake', image: undefined });
  }

  describeKernel(path: string) {
    return Promise.resolve({ path, release: undefined, image: undefined });
  }

  defaultInitramfs() {
    return Promise.resolve('/cache/initramfs.cpio');
  }

  createMachine(options: RunMachineOptions): Promise<RunMachine> {
    if (this.createError !== undefined) return Promise.reject(this.createError);
    const machine = new FakeMachine(options, (process) => this.onProcess(process));
    machine.onStart = () => queueMicrotask(() => this.#guest(machine));
    this.machine = machine;
    return Promise.resolve(machine);
  }

  /** What was restored, and how. */
  readonly restored: { dir: string; options: RestoreMachineOptions }[] = [];
  /** What the next snapshot is of. */
  described: Omit<DescribedSnapshot, 'dir' | 'chain'> = {
    ...{ name: 'saved', kind: 'kernel', cpus: 1, memoryBytes: 2 ** 28, images: [], nics: [], consolePorts: [] },
    ...{ hasAgent: true, bootFiles: [] },
  };

  describeSnapshot(dir: string): Promise<DescribedSnapshot> {
    return Promise.resolve({ dir, chain: [dir], ...this.described });
  }

  restoreMachine(dir: string, options: RestoreMachineOptions): Promise<RunMachine> {
    this.restored.push({ dir, options });
    return this.createMachine({} as RunMachineOptions);
  }

  /** Names that are taken, with how the machine of each ended once it has. */
  readonly names = new Map<string, EndToRemember | undefined>();
  /** Ends of controls that were closed. */
  readonly controlled: { status: number; outcome: string }[] = [];
  /** Command lines that were given processes of their own. */
  readonly started: string[][] = [];
  readonly keptKernels: string[] = [];
  /** What each of them is fenced in by. */
  readonly fences: HolderFence[] = [];
  /** That of this process. */
  fence: Fence | undefined;
  /** How the next such process starts. */
  onHolder: (onProgress: (underway: Underway) => void) => HolderProcess = () => ({
    ready: Promise.resolve({ name: 'box', id: 'abc', pid: 7 }),
    ended: new Promise(() => undefined),
    kill: () => undefined,
    letGo: () => undefined,
  });
  accept: ((stream: Duplex) => void) | undefined;
  carriedFrom: Channel | undefined;
  /** The channels of what was forwarded. */
  readonly joined: Channel[] = [];
  /** Where other networks are asked for: of whoever lends them, and inside. */
  readonly lentOver: Channel[] = [];
  networksFrom: Channel | undefined;

  claimName(name: string, host: 'native' | 'embedded'): Promise<NameClaim> {
    if (this.names.has(name)) return Promise.reject(new VmmError('ERR_NAME_TAKEN', `${name} is there already`));
    this.names.set(name, undefined);
    return Promise.resolve({
      record: { name, id: 'abc', pid: 7, host, since: 'now' },
      logPath: '/nowhere/log',
      listen: (accept) => {
        this.accept = accept;
        return Promise.resolve();
      },
      release: (end) => {
        this.names.set(name, end);
        return Promise.resolve();
      },
    });
  }

  openControl(_machine: RunMachine, { networks }: Partial<ControlWishes> = {}): Promise<OpenControl> {
    this.networksFrom = networks;
    return Promise.resolve({
      accept: () => undefined,
      close: (end) => {
        this.controlled.push(end);
        return Promise.resolve();
      },
    });
  }

  carryConnections(): Promise<() => void> {
    return Promise.resolve(() => undefined);
  }

  takeCarried(channel: Channel, accept: (stream: Duplex) => void): Promise<void> {
    this.carriedFrom = channel;
    this.accept = accept;
    return Promise.resolve();
  }

  /** Rejected by untilReached(). */
  unreachable: Error | undefined;

  untilReached(): Promise<void> {
    return this.unreachable === undefined ? Promise.resolve() : Promise.reject(this.unreachable);
  }

  startHolder(
    argv: readonly string[],
    fence: HolderFence,
    onProgress: (underway: Underway) => void,
  ): Promise<HolderProcess> {
    this.started.push([...argv]);
    this.fences.push(fence);
    return Promise.resolve(this.onHolder(onProgress));
  }

  keepKernel(path: string): Promise<void> {
    this.keptKernels.push(path);
    return Promise.resolve();
  }

  closeFence(): Promise<Fence | undefined> {
    return Promise.resolve(this.fence);
  }

  innerPath(path: string): string {
    return `/host${path}`;
  }

  /** Images that others hold. */
  readonly held = new Set<string>();

  lockDisks(disks: readonly DiskChoice[]): Promise<() => Promise<void>> {
    const paths = disks.map(({ path }) => path);
    const taken = paths.find((path) => this.held.has(path));
    if (taken !== undefined)
      return Promise.reject(new VmmError('ERR_DISK_LOCKED', `${taken}: another process uses it`));
    this.locked.push(...paths);
    return Promise.resolve(() => {
      for (const path of paths) this.locked.splice(this.locked.indexOf(path), 1);
      return Promise.resolve();
    });
  }

  lendNics(nics: readonly NicChoice[]): Promise<LentNics> {
    if (this.lendError !== undefined) return Promise.reject(this.lendError);
    this.lent.push(...nics.map(({ id }) => id));
    this.lentChoices.push(...nics);
    const carried = nics.map((nic, channel) => ({ ...nic, network: { kind: 'carried' as const, channel } }));
    const close = (): Promise<void> => {
      this.lent.length = 0;
      return Promise.resolve();
    };
    const lendOthers = (channel: Channel): void => void this.lentOver.push(channel);
    return Promise.resolve({ nics: carried, join: nics.map(() => () => undefined), lendOthers, close });
  }

  forward(
    argv: readonly string[],
    io: CommandIo,
    { signal, join = [] }: Parameters<RunWorld['forward']>[2],
  ): Promise<SessionEnd> {
    this.forwarded.push([...argv]);
    for (const take of join) {
      const channel = { input: new PassThrough(), output: new PassThrough() };
      this.joined.push(channel);
      take(channel);
    }
    return Promise.race([
      this.onForward(io),
      new Promise<never>((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(new AbortError(signal)), { once: true }),
      ),
    ]);
  }
}

/** A write error as a closed pipe gives it. */
export function brokenPipe(): Writable {
  return new Writable({
    write: (_chunk, _encoding, done) =>
      done(Object.assign(new VmmError('ERR_SYSTEM', 'write EPIPE'), { code: 'EPIPE' })),
  });
}

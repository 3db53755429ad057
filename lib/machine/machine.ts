/**
 * A virtual machine with its life, as users hold it:
 *
 *   created --start--> running <--pause/resume--> paused
 *                         |                          |
 *                         +------ ends (any way) ----+--> stopped | failed --close--> (closed)
 *
 * It joins board (what the machine is), console, end detection and status. Decisions about guests' exits are in
 * exit-loop.ts, what a board is made of in board.ts.
 */
import { AbortError, KvmError, VmmError } from '../base/errors.js';
import { checkOptionNames } from '../base/options.js';
import { ramRanges } from '../boot/index.js';
import type { DeviceFault } from '../bus/index.js';
import { RTC_BYTES, type ChannelHostEnd } from '../chipset/index.js';
import { Kvm, type Vcpu, type VcpuExit } from '../kvm/index.js';
import { AddressSpace } from '../memory/index.js';
import { Board, type BoardListener } from './board.js';
import { MachineConsole } from './console.js';
import { HaltDetector } from './halt-detector.js';
import { inspectMachine, type JsonValue } from './inspect.js';
import { MachinePit } from './machine-pit.js';
import { requireLinuxSupport } from './linux-support.js';
import { checkMachineOptions, type MachineConfig, type MachineOptions } from './options.js';
import { PanicWatch } from './panic-watch.js';
import { crashDetail, type EndStatus } from './status.js';

export type MachineState = 'created' | 'running' | 'paused' | 'stopped' | 'failed';

/** Guest memory for users: copies, checked. */
export interface MachineMemory {
  readonly sizeBytes: number;
  /** A copy of `length` bytes at a guest physical address. @throws VmmError ERR_GUEST_MEMORY, ERR_CLOSED */
  read(gpa: number, length: number): Uint8Array;
  /** @throws VmmError ERR_GUEST_MEMORY, ERR_CLOSED */
  write(gpa: number, bytes: Uint8Array): void;
}

export interface StopOptions {
  /** How long the guest may take to power off. Default 30 000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface PauseOptions {
  /** 'count' (the default): the guest's clock is to show the pause afterwards; 'freeze': its time stands still. */
  readonly clock?: 'count' | 'freeze';
}

/** For the call that an AbortSignal may end. */
export interface CallOptions {
  readonly signal?: AbortSignal;
}

export class Machine implements AsyncDisposable {
  readonly name: string;
  readonly console: MachineConsole;
  readonly memory: MachineMemory;
  /** The guest's time by the PIT: status, events, policy, scale. */
  readonly pit: MachinePit;

  readonly #config: MachineConfig;
  readonly #kvm: Kvm;
  #space: AddressSpace;
  readonly #panic: PanicWatch;
  #board!: Board;
  #halt: HaltDetector | undefined;
  #state: MachineState = 'created';
  #status: EndStatus | undefined;
  readonly #ended: Promise<EndStatus>;
  #resolveEnded!: (status: EndStatus) => void;
  /** Changes of life follow one another: pause, resume, restart, and the look of the halt detector. */
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;
  /** What a battery keeps over a reset. */
  readonly #cmos = new Uint8Array(RTC_BYTES);
  #resets = 0;
  /** From the guest's reset until the new board runs. */
  #resetting = false;
  /** While it runs, the machine keeps the event loop alive. */
  #holdsLoop = false;

  private constructor(config: MachineConfig, kvm: Kvm, space: AddressSpace) {
    this.name = config.name;
    this.#config = config;
    this.#kvm = kvm;
    this.#space = space;
    this.memory = {
      sizeBytes: space.sizeBytes,
      read: (gpa, length) => this.#space.read(gpa, length),
      write: (gpa, bytes) => this.#space.write(gpa, bytes),
    };
    this.pit = new MachinePit(config.pit, (gpa, length) => this.#space.read(gpa, length), config.logger);
    this.console = new MachineConsole(
      (bytes) => this.#board.chipset.consoleInput(bytes),
      (holding) => this.#board.chipset.holdConsole(holding),
    );
    this.#panic = new PanicWatch({
      clock: config.clock,
      onSettled: () => this.#end({ reason: 'panic', detail: this.#panic.message ?? 'kernel panic' }),
    });
    this.#ended = new Promise((resolve) => (this.#resolveEnded = resolve));
  }

  /**
   * Makes a machine: checks the options, reserves memory, builds the board, loads the boot image. It does not run yet.
   *
   * @throws TypeError or RangeError for a mistake in the options; VmmError ERR_KVM_UNAVAILABLE, ERR_KERNEL_IMAGE,
   *   ERR_GUEST_MEMORY, ERR_LINUX_NEEDS_EMBEDDED_HOST; KvmError; AbortError.
   * @example
   * const vm = await Machine.create({ boot: { kernel: 'vmlinuz', initrd: 'initrd.img', cmdline: 'console=ttyS0' } });
   */
  static async create(options: MachineOptions, call: CallOptions = {}): Promise<Machine> {
    const config = checkMachineOptions(options);
    if (call.signal?.aborted) throw new AbortError(call.signal);
    const kvm = Kvm.open();
    let space: AddressSpace | undefined;
    try {
      if (config.cpus > kvm.maxVcpus()) {
        throw new RangeError(`cpus: ${config.cpus} are more than this KVM allows, ${kvm.maxVcpus()}`);
      }
      if (!('flat' in config.boot)) await requireLinuxSupport(kvm);
      space = makeSpace(config);
      const machine = new Machine(config, kvm, space);
      machine.#use(
        await Board.create(kvm, config, space, machine.#listener(), {
          cmos: machine.#cmos,
          signal: call.signal,
        }),
      );
      return machine;
    } catch (error) {
      space?.close();
      kvm.close();
      throw error;
    }
  }

  get state(): MachineState {
    return this.#state;
  }

  /** The host's end of the guest channel, over which the guest agent is spoken to. */
  get channel(): ChannelHostEnd {
    return this.#board.chipset.channel;
  }

  /** Lets the CPUs run. On a paused machine the same as resume(). @throws VmmError ERR_STATE after its end. */
  async start(): Promise<void> {
    if (this.#state === 'running') throw new VmmError('ERR_STATE', `${this.name} runs already`);
    await this.#run();
  }

  /** Lets a paused machine run on. @throws VmmError ERR_STATE unless it is paused. */
  async resume(): Promise<void> {
    if (this.#state !== 'paused') throw new VmmError('ERR_STATE', `${this.name} is ${this.#state}, not paused`);
    await this.#run();
  }

  async #run(): Promise<void> {
    await this.#inTurn(() => {
      if (this.#state !== 'created' && this.#state !== 'paused') {
        throw new VmmError('ERR_STATE', `${this.name} is ${this.#state}: it can't run`);
      }
      const resumed = this.#state === 'paused';
      this.#state = 'running';
      if (resumed) for (const vcpu of this.#board.vcpus) tellPaused(vcpu);
      this.#holdLoop(true);
      if (resumed) this.pit.resume();
      else this.pit.start();
      this.#board.resume();
      this.#halt ??= this.#makeHaltDetector();
      this.#halt.start();
    });
  }

  /**
   * Takes every CPU out of the guest; resolves when all have acknowledged.
   *
   * @throws TypeError for a clock that is neither 'count' nor 'freeze'; VmmError ERR_STATE unless it runs.
   */
  async pause(options: PauseOptions = {}): Promise<void> {
    checkOptionNames('pause', options, ['clock']);
    const { clock = 'count' } = options;
    if (clock !== 'count' && clock !== 'freeze') throw new TypeError("pause: clock is 'count' or 'freeze'");
    await this.#inTurn(async () => {
      if (this.#state === 'paused') return;
      if (this.#state !== 'running') throw new VmmError('ERR_STATE', `${this.name} is ${this.#state}: it can't pause`);
      this.#halt?.stop();
      await this.#board.park();
      this.pit.pause(clock);
      // The guest may have ended in the meantime.
      if (this.#still()) {
        this.#state = 'paused';
        this.#holdLoop(false);
      }
    });
  }

  /**
   * Asks the guest to power off (its power button), and waits until the machine has ended.
   *
   * @throws VmmError ERR_TIMEOUT when it does not in `timeoutMs`; it then still runs, and kill() ends it. AbortError.
   */
  async stop(options: StopOptions = {}): Promise<EndStatus> {
    const { timeoutMs = 30_000, signal } = options;
    if (this.#state === 'created') return this.kill();
    if (this.#state === 'paused') await this.#run();
    if (this.#state === 'running') this.#board.chipset.powerButton();
    const limit = AbortSignal.timeout(timeoutMs);
    try {
      return await this.wait({ signal: signal ? AbortSignal.any([signal, limit]) : limit });
    } catch (error) {
      if (!limit.aborted || signal?.aborted === true) throw error;
      throw new VmmError('ERR_TIMEOUT', `${this.name}: the guest did not power off in ${timeoutMs} ms`, {
        cure: 'kill() ends it at once',
      });
    }
  }

  /** Ends the machine at once; `wait()` then gives 'killed', unless it had ended already. */
  async kill(): Promise<EndStatus> {
    this.#end({ reason: 'killed' });
    return this.#ended;
  }

  /** How the machine ended, once it has. @throws AbortError */
  async wait(call: CallOptions = {}): Promise<EndStatus> {
    const { signal } = call;
    if (!signal) return this.#ended;
    if (signal.aborted) throw new AbortError(signal);
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(new AbortError(signal));
      signal.addEventListener('abort', abort, { once: true });
      void this.#ended.then((status) => {
        signal.removeEventListener('abort', abort);
        resolve(status);
      });
    });
  }

  /** Ends the machine if it runs, and gives back threads, descriptors and memory. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.kill();
    await this.#inTurn(async () => {
      await this.#board.close();
      this.#space.close();
      this.#kvm.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Everything about the machine as a JSON tree: configuration, CPUs, memory, devices, counters. */
  inspect(): JsonValue {
    return inspectMachine({
      config: this.#config,
      state: this.#state,
      status: this.#status,
      resets: this.#resets,
      board: this.#board,
      pit: this.pit.status(),
      space: this.#space,
      closed: this.#closing !== undefined,
    });
  }

  // ---- the end, and what leads to it ----

  #listener(): BoardListener {
    return {
      onFatalExit: (vcpu, exit) => this.#onFatalExit(vcpu, exit),
      onFault: (fault) => this.#onFault(fault),
      isOver: () => !this.#still() || this.#resetting,
      onRunFailure: (vcpu, errno) =>
        this.#end({
          reason: 'failed',
          detail: `vCPU ${vcpu.id}: KVM_RUN failed with errno ${errno}`,
          error: new VmmError('ERR_KVM', `vCPU ${vcpu.id}: KVM_RUN failed with errno ${errno}`),
        }),
      onPowerOff: () => this.#end({ reason: 'poweroff' }),
      onReset: () => this.#onReset(),
      onPanic: (kind) => this.#panic.panicked(`the guest reported by pvpanic: ${kind}`),
      onDebugExit: (code) => this.#end({ reason: 'debug-exit', code }),
      onConsoleOutput: (bytes) => {
        this.#panic.look(bytes);
        this.console.receive(bytes);
      },
    };
  }

  #use(board: Board): void {
    board.chipset.onConsoleDrain = () => this.console.inputDrained();
    this.#board = board;
    this.pit.attach(board);
  }

  #onFatalExit(vcpu: Vcpu, exit: VcpuExit): void {
    const detail = crashDetail(exit, vcpu, (gpa, length) => {
      const size = Math.min(length, 4096 - (gpa % 4096));
      return this.#space.contains(gpa, size) ? this.#space.read(gpa, size) : undefined;
    });
    // A guest without firmware resets itself by a triple fault when it knows no better way.
    if (exit.kind === 'shutdown' && this.#panic.message !== undefined) this.#onReset();
    else this.#end({ reason: 'crash', detail });
  }

  /** A bug in a device of ours stops this machine, with its state kept for a look, and no other. */
  #onFault(fault: DeviceFault): void {
    const error = new VmmError('ERR_DEVICE', `device ${fault.device} failed`, { cause: fault.cause });
    this.#config.logger.log('error', error.message, { cause: String(fault.cause) });
    this.#end({ reason: 'failed', detail: `device ${fault.device} failed: ${String(fault.cause)}`, error });
  }

  #onReset(): void {
    if (this.#panic.message !== undefined) return this.#end({ reason: 'panic', detail: this.#panic.message });
    if (this.#config.onReset === 'end') return this.#end({ reason: 'reset' });
    this.#resetting = true;
    void this.#inTurn(() => this.#restart());
  }

  /** The same machine from power-on: a new board on new memory, which is zero. */
  async #restart(): Promise<void> {
    if (!this.#still()) return;
    this.#halt?.stop();
    this.#halt = undefined;
    this.#panic.reset();
    this.pit.close();
    await this.#board.close();
    try {
      this.#space.close();
      this.#space = makeSpace(this.#config);
      this.#use(await Board.create(this.#kvm, this.#config, this.#space, this.#listener(), { cmos: this.#cmos }));
    } catch (cause) {
      const error = cause instanceof VmmError ? cause : new VmmError('ERR_SYSTEM', 'the restart failed', { cause });
      this.#end({ reason: 'failed', detail: `the restart failed: ${error.message}`, error });
      return;
    }
    this.#resets++;
    this.#resetting = false;
    if (!this.#still()) return;
    this.pit.start();
    this.#board.resume();
    this.#halt = this.#makeHaltDetector();
    this.#halt.start();
  }

  /** The first end counts; vCPUs are parked before anyone is told. */
  #end(status: EndStatus): void {
    if (this.#status) return;
    const panic = this.#panic.message;
    const seen = panic !== undefined && (status.reason === 'halted' || status.reason === 'poweroff');
    this.#status = seen ? { reason: 'panic', detail: panic } : status;
    const final = this.#status;
    this.#halt?.stop();
    this.#panic.reset();
    const wasRunning = this.#state === 'running';
    this.#state = final.reason === 'failed' ? 'failed' : 'stopped';
    void this.#inTurn(async () => {
      // A vCPU that waits in the exit which ended the machine stays there; the others leave the guest.
      if (wasRunning) await this.#board.halt();
      this.pit.close();
      this.console.end();
      this.#holdLoop(false);
      this.#resolveEnded(final);
    });
  }

  #still(): boolean {
    return this.#status === undefined;
  }

  #makeHaltDetector(): HaltDetector {
    return new HaltDetector({
      clock: this.#config.clock,
      cpus: this.#board.vcpus,
      whileParked: (look) =>
        this.#inTurn(async () => {
          if (this.#state !== 'running') return;
          await this.#board.park();
          if (this.#still() && !look()) this.#board.resume();
        }),
      onHalted: () => this.#end({ reason: 'halted', detail: 'every CPU is halted with interrupts off' }),
    });
  }

  #inTurn<T>(action: () => T | Promise<T>): Promise<T> {
    const result = this.#turn.then(action);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #holdLoop(hold: boolean): void {
    if (hold === this.#holdsLoop) return;
    this.#holdsLoop = hold;
    this.#kvm.holdEventLoop(hold);
  }
}

function makeSpace(config: MachineConfig): AddressSpace {
  return new AddressSpace({ ranges: ramRanges(config.memoryBytes), backing: config.memoryBacking });
}

/** Tells the guest's watchdogs that the host stopped it; a guest without kvmclock has nowhere to be told. */
function tellPaused(vcpu: Vcpu): void {
  try {
    vcpu.kvmclockControl();
  } catch (error) {
    if (!(error instanceof KvmError) || error.errno !== 'EINVAL') throw error;
  }
}

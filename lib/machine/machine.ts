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
import type { QemuAgentPort } from '../agent/qemu/port.js';
import { AbortError, VmmError } from '../base/errors.js';
import { checkOptionNames } from '../base/options.js';
import { newRtcBattery, type ChannelHostEnd } from '../chipset/index.js';
import { Kvm } from '../kvm/index.js';
import type { AddressSpace } from '../memory/index.js';
import type { VirtioDevice } from '../vdp/index.js';
import { Board, type BoardListener } from './board.js';
import type { CallOptions, MachineMemory, PauseOptions, StopOptions } from './call-options.js';
import { MachineConsole } from './console.js';
import { qemuAgentEnd } from './console-options.js';
import { endListener } from './end-listener.js';
import { HaltDetector } from './halt-detector.js';
import { countersOf, inspectMachine, type JsonValue, type MachineCounters } from './inspect.js';
import type { LentDevice } from './lent-device.js';
import { MachineDevices } from './machine-devices.js';
import { MachinePit, type RestoredTime } from './machine-pit.js';
import { requireLinuxSupport } from './linux-support.js';
import { checkMachineOptions, type MachineConfig, type MachineOptions } from './options.js';
import { PanicWatch } from './panic-watch.js';
import { makeSpace, memoryForUsers, SnapshotMemory } from './snapshot/machine-memory.js';
import type { RestoreOptions, RestorePhases, Snapshot, SnapshotOptions } from './snapshot/options.js';
import { checkRestoreOptions, checkSnapshotOptions } from './snapshot/options.js';
import { SavingTurns } from './snapshot/saving-turns.js';
import { closeRestore, openRestore, type RestoredOn, restoreOn } from './snapshot/restore-machine.js';
import { saveMachine, type SaveMachine } from './snapshot/save-machine.js';
import { StateHolder, type StateListener } from './state-holder.js';
import type { EndStatus, MachineState } from './status.js';
import { tellStopped } from './state/tell-stopped.js';
import { TurnQueue, untilAborted } from '../base/turn-queue.js';

/** Machines that run: they live without anybody holding them. */
const running = new Set<Machine>();

export class Machine implements AsyncDisposable {
  readonly name: string;
  readonly console: MachineConsole;
  readonly memory: MachineMemory;
  /** The guest's time by the PIT: status, events, policy, scale. */
  readonly pit: MachinePit;
  /** The host's end of the port that QEMU's guest agent opens; undefined without `qemuAgent`. */
  readonly qemuAgentPort: QemuAgentPort | undefined;

  readonly #config: MachineConfig;
  readonly #kvm: Kvm;
  readonly #devices: MachineDevices;
  #memory: SnapshotMemory;
  readonly #panic: PanicWatch;
  #board!: Board;
  #halt: HaltDetector | undefined;
  readonly #life: StateHolder;
  #status: EndStatus | undefined;
  readonly #ended: Promise<EndStatus>;
  #resolveEnded!: (status: EndStatus) => void;
  /** Changes of life follow one another: pause, resume, restart, and the look of the halt detector. */
  readonly #turns = new TurnQueue();
  /** The board has never run. */
  #fresh = true;
  /** By the machine's clock: when its CPUs were out of the guest, or it was restored. */
  #stoppedAtNs = 0n;
  #closing: Promise<void> | undefined;
  /** It was restored and has not run since: its devices are at rest. */
  #isRestored = false;
  readonly #saving = new SavingTurns();
  #restored: RestorePhases | undefined;
  readonly #battery = newRtcBattery();
  #resets = 0;
  /** From the guest's reset until the new board runs. */
  #resetting = false;

  private constructor(config: MachineConfig, kvm: Kvm, memory: SnapshotMemory, devices: MachineDevices) {
    this.name = config.name;
    this.#config = config;
    this.#life = new StateHolder(config.logger);
    this.#kvm = kvm;
    this.#devices = devices;
    this.#memory = memory;
    this.qemuAgentPort = qemuAgentEnd(config.consolePorts);
    this.memory = memoryForUsers(memory.space.sizeBytes, () => this.#memory);
    this.pit = new MachinePit(config, (gpa, length) => this.#memory.space.read(gpa, length));
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
    checkOptionNames('Machine.create', call, ['signal']);
    if (call.signal?.aborted) throw new AbortError(call.signal);
    const kvm = Kvm.open();
    let space: AddressSpace | undefined;
    let devices: MachineDevices | undefined;
    try {
      if (config.cpus > kvm.maxVcpus()) {
        throw new RangeError(`cpus: ${config.cpus} are more than this KVM allows, ${kvm.maxVcpus()}`);
      }
      if (!('flat' in config.boot)) await requireLinuxSupport(kvm);
      space = makeSpace(config);
      devices = await MachineDevices.open({ ...config, memory: space, signal: call.signal });
      const memory = new SnapshotMemory(space, (error) => machine.#memoryFailed(error));
      const machine: Machine = new Machine(config, kvm, memory, devices);
      machine.#use(
        await Board.create(kvm, config, space, machine.#listener(), {
          battery: machine.#battery,
          proxies: () => machine.#devices.makeProxies(),
          signal: call.signal,
        }),
      );
      return machine;
    } catch (error) {
      await devices?.close().catch(() => undefined);
      if (space) await (devices?.release(space) ?? space.close());
      kvm.close();
      throw error;
    }
  }

  /**
   * Makes the machine of a snapshot anew, which goes on where the snapshot was taken. Several clones of one may run at a time.
   *
   * @throws TypeError or RangeError for a mistake in the options; VmmError ERR_SNAPSHOT (no snapshot, damaged, or a backend that it
   *   can't name), ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT, ERR_SNAPSHOT_HOST (what this host lacks, by name), ERR_DISK_IMAGE, ERR_DEVICE,
   *   ERR_KVM_UNAVAILABLE, ERR_GUEST_MEMORY, ERR_PAGER (memory that can't be read, naming the group); KvmError; SystemError; AbortError.
   * @example
   * const clone = await Machine.restore('snapshots/ready', { overrides: { nics: { net0: passt() } } });
   */
  static async restore(dir: string, options: RestoreOptions = {}): Promise<Machine> {
    checkRestoreOptions(dir, options);
    const { signal, start = true } = options;
    if (signal?.aborted) throw new AbortError(signal);
    const parts = await openRestore(dir, options);
    const memory = new SnapshotMemory(parts.space, (error) => machine.#memoryFailed(error));
    const machine: Machine = new Machine(parts.plan.config, parts.kvm, memory, parts.devices);
    let restoring: RestoredOn['phases'] | undefined;
    try {
      const { board, time, phases } = await restoreOn(parts, memory, options, {
        listener: machine.#listener(),
        battery: machine.#battery,
      });
      restoring = phases;
      machine.#use(board, time);
      machine.#life.state = 'paused';
      machine.#isRestored = true;
      machine.#restored = phases.all;
      // By then there was no board to be ended.
      if (memory.failure !== undefined) throw memory.failure;
      if (start) await machine.#run(signal);
      phases.ready();
      return machine;
    } catch (error) {
      // What the lack of its memory looks like where it was met says less.
      const reason = memory.failure ?? error;
      restoring?.fail(reason);
      if (machine.#hasBoard()) {
        await machine.close().catch(() => undefined);
        await parts.plan.abandon();
      } else await closeRestore(parts, memory);
      throw reason;
    }
  }

  /** The phases of the restore, and what each cost; undefined for a machine that was created. */
  get restored(): RestorePhases | undefined {
    return this.#restored;
  }

  #hasBoard(): boolean {
    return (this.#board as Board | undefined) !== undefined;
  }

  /**
   * Saves the machine into a new folder, from which any number of machines can be restored. It leaves the machine in the state that
   * it had. Where nothing else is asked for, the guest runs on but for a stop of some milliseconds.
   *
   * Disks are cut at the same instant: the file of a raw or qcow2 disk belongs to the snapshot from then on, and the machine goes on in
   * an image beside it. Disks in memory, and changes kept in memory, become part of the folder.
   *
   * @throws TypeError or RangeError for a mistake in the options; VmmError ERR_STATE (the machine has ended), ERR_SNAPSHOT_REFUSED (a
   *   device refuses, or the pause would be longer than was promised; its `cure` says what would do), ERR_SNAPSHOT_PARENT,
   *   ERR_PAGER; SystemError naming what could not be written; AbortError. The machine goes on then, and nothing is left but the
   *   image of a disk to which the guest has written since an instant that came to nothing: it is that disk now.
   */
  async snapshot(dir: string, options: SnapshotOptions = {}): Promise<Snapshot> {
    checkSnapshotOptions(dir, options);
    return this.#saving.run(this.name, options, async (signal) => {
      this.#requireSavable();
      const memory = this.#memory;
      try {
        return await saveMachine(this.#saveMachine(), dir, { ...options, signal });
      } catch (error) {
        // What the lack of its memory looks like where it was met says less.
        throw memory.failure ?? error;
      }
    });
  }

  get state(): MachineState {
    return this.#life.state;
  }

  /** Calls back at once when it has another state; the result takes the listener away. @throws TypeError */
  readonly onState = (listener: StateListener): (() => void) => this.#life.on(listener);

  /** The host's end of the guest channel, over which the guest agent is spoken to. */
  get channel(): ChannelHostEnd {
    return this.#board.chipset.channel;
  }

  /**
   * A device that the guest has been lent, by its id.
   *
   * @throws RangeError for an id that no device has.
   * @example vm.device('root').contract.functions.discard.by // 'native' or 'emulated'
   */
  device(id: string): LentDevice {
    return this.#devices.find(id);
  }

  /** Lets the CPUs run. On a paused machine the same as resume(). @throws VmmError ERR_STATE after its end; AbortError */
  async start(call: CallOptions = {}): Promise<void> {
    checkOptionNames('start', call, ['signal']);
    if (this.state === 'running') throw new VmmError('ERR_STATE', `${this.name} runs already`);
    await this.#run(call.signal);
  }

  /** Lets a paused machine run on. @throws VmmError ERR_STATE unless it is paused; AbortError */
  async resume(call: CallOptions = {}): Promise<void> {
    checkOptionNames('resume', call, ['signal']);
    if (this.state !== 'paused') throw new VmmError('ERR_STATE', `${this.name} is ${this.state}, not paused`);
    await this.#run(call.signal);
  }

  async #run(signal?: AbortSignal): Promise<void> {
    await this.#turns.run(async () => {
      if (this.state !== 'created' && this.state !== 'paused') {
        throw new VmmError('ERR_STATE', `${this.name} is ${this.state}: it can't run`);
      }
      await this.#letRun();
      this.#life.state = 'running';
      this.#holdLoop(true);
    }, signal);
  }

  /** The board's CPUs go; all of them, or none when one can't. */
  async #letRun(): Promise<void> {
    const board = this.#board;
    if (this.#isRestored) this.#goOn();
    if (!this.#fresh) tellStopped(board.vcpus, this.#memory.space, this.#config.clock.nowNs() - this.#stoppedAtNs);
    // Before the first instruction: a guest that programs its PIT at once must not be taken for one that did so in the pause.
    this.pit.run();
    try {
      board.resume();
    } catch (error) {
      await board.park();
      this.pit.pauseAgain();
      throw error;
    }
    this.#fresh = false;
    this.#halt ??= this.#makeHaltDetector();
    this.#halt.start();
  }

  /**
   * Takes every CPU out of the guest; resolves when all have acknowledged. A CPU whose access a device answers later
   * is waited for. Aborted, the machine runs on.
   *
   * @throws TypeError for a clock that is neither 'count' nor 'freeze'; VmmError ERR_STATE unless it runs; AbortError.
   */
  async pause(options: PauseOptions = {}): Promise<void> {
    checkOptionNames('pause', options, ['clock', 'signal']);
    const { clock = 'count', signal } = options;
    if (clock !== 'count' && clock !== 'freeze') throw new TypeError("pause: clock is 'count' or 'freeze'");
    await this.#turns.run(async () => {
      if (this.state === 'paused') return;
      if (this.state !== 'running') throw new VmmError('ERR_STATE', `${this.name} is ${this.state}: it can't pause`);
      await this.#park(signal);
      // The guest may have ended in the meantime, or have reset itself: its next board then waits for resume().
      if (!this.#still()) return;
      if (!this.#resetting) this.pit.pause(clock);
      this.#life.state = 'paused';
      this.#holdLoop(false);
    }, signal);
  }

  /**
   * Asks the guest to power off (its power button), and waits until the machine has ended.
   *
   * @throws VmmError ERR_TIMEOUT when it does not in `timeoutMs`; it then still runs, and kill() ends it. AbortError.
   */
  async stop(options: StopOptions = {}): Promise<EndStatus> {
    checkOptionNames('stop', options, ['timeoutMs', 'signal']);
    const { timeoutMs = 30_000, signal } = options;
    if (this.state === 'created') return this.kill();
    if (this.state === 'paused') await this.#run();
    if (this.state === 'running') this.#board.chipset.powerButton();
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

  /**
   * Ends the machine at once; `wait()` then gives 'killed', unless it had ended already. A snapshot under way is given up.
   *
   * @throws AbortError when the signal fires before every CPU has left the guest; they leave it all the same.
   */
  async kill(call: CallOptions = {}): Promise<EndStatus> {
    checkOptionNames('kill', call, ['signal']);
    if (call.signal?.aborted) throw new AbortError(call.signal);
    // A snapshot that stops it for long would be waited for.
    void this.#saving.stop();
    this.#end({ reason: 'killed' });
    return untilAborted(this.#ended, call.signal);
  }

  /** How the machine ended, once it has. @throws AbortError */
  async wait(call: CallOptions = {}): Promise<EndStatus> {
    checkOptionNames('wait', call, ['signal']);
    return untilAborted(this.#ended, call.signal);
  }

  /**
   * Ends the machine if it runs, and gives back threads, descriptors and memory. Idempotent.
   *
   * @throws VmmError ERR_TIMEOUT when a disk did not answer in 30 s: all else is closed; its image stays locked and the
   *   memory mapped until it answers. AbortError when the signal fires first; the closing goes on.
   */
  async close(call: CallOptions = {}): Promise<void> {
    checkOptionNames('close', call, ['signal']);
    this.#closing ??= this.#close();
    await untilAborted(this.#closing, call.signal);
  }

  async #close(): Promise<void> {
    this.#end({ reason: 'killed' });
    // A restart may wait for a disk that never answers, and the end for the restart; so may a snapshot.
    if (this.#resetting || this.#saving.isBusy) this.#devices.beginClose();
    await this.#saving.stop();
    await this.#ended;
    this.#devices.beginClose();
    await this.#turns.run(async () => {
      // The disks' time limits do not keep the process alive.
      this.#holdLoop(true);
      try {
        await this.#board.close();
        try {
          await this.#devices.close();
        } finally {
          // After all that may wait for a page of it.
          this.#memory.close();
          await this.#devices.release(this.#memory.space);
        }
      } finally {
        this.#holdLoop(false);
        this.#kvm.close();
      }
    });
  }

  readonly [Symbol.asyncDispose] = (): Promise<void> => this.close();

  /** What is counted, for who looks often: `inspect()` costs several times as much. */
  readonly counters = (): MachineCounters => countersOf(this.#board, this.#devices);

  /** Everything about the machine as a JSON tree: configuration, CPUs, memory, devices, counters. */
  inspect(): JsonValue {
    return inspectMachine({
      config: this.#config,
      state: this.state,
      status: this.#status,
      resets: this.#resets,
      board: this.#board,
      lent: this.#devices.inspect(),
      pit: this.pit.status(),
      space: this.#memory.space,
      paging: this.#memory.inspect(),
    });
  }

  // ---- a snapshot ----

  #saveMachine(): SaveMachine {
    let ran = false;
    const memory = this.#memory;
    return {
      config: this.#config,
      kvm: this.#kvm,
      devices: this.#devices,
      pit: this.pit,
      turns: this.#turns,
      ended: this.#saving.ended,
      board: () => this.#board,
      space: () => memory.space,
      lineage: () => memory.lineage(),
      pager: () => memory.pager(),
      whole: () => memory.whole(),
      access: () => memory.access(),
      hold: async (signal) => {
        this.#requireSavable();
        // A restart has put other memory under other CPUs.
        if (memory !== this.#memory) throw new VmmError('ERR_STATE', `${this.name} was reset meanwhile`);
        ran = this.state === 'running';
        if (ran) await this.#park(signal);
        if (!this.#still() || this.#resetting) throw new VmmError('ERR_STATE', `${this.name}: the guest ended`);
        if (ran) this.pit.pause('count');
        return ran;
      },
      letGo: async () => {
        if (!ran || !this.#still() || this.#resetting) return;
        await this.#letRun();
      },
    };
  }

  /** @throws VmmError ERR_STATE, ERR_PAGER */
  #requireSavable(): void {
    if (this.#still() && !this.#resetting && this.#closing === undefined) return;
    if (this.#memory.failure !== undefined) throw this.#memory.failure;
    const what = this.#resetting ? 'being reset' : this.#still() ? 'being closed' : this.state;
    throw new VmmError('ERR_STATE', `${this.name} is ${what}: it can't be saved`);
  }

  /** Every CPU out of the guest, or none. @throws AbortError */
  async #park(signal: AbortSignal | undefined): Promise<void> {
    this.#halt?.stop();
    try {
      await untilAborted(this.#board.park(), signal);
      this.#stoppedAtNs = this.#config.clock.nowNs();
    } catch (error) {
      if (this.#still() && !this.#resetting) {
        this.#board.resume();
        this.#halt?.start();
      }
      throw error;
    }
  }

  // ---- the end, and what leads to it ----

  #listener(): BoardListener {
    return endListener({
      panic: this.#panic,
      logger: this.#config.logger,
      memory: () => this.#memory.space,
      onOutput: (bytes) => this.console.receive(bytes),
      onReset: () => this.#onReset(),
      onEnd: (status) => this.#end(status),
    });
  }

  #use(board: Board, restored?: RestoredTime): void {
    board.chipset.onConsoleDrain = () => this.console.inputDrained();
    this.#board = board;
    this.#memory.attach(board.vm);
    this.#fresh = restored === undefined;
    this.#stoppedAtNs = this.#config.clock.nowNs();
    this.pit.attach(board, restored);
  }

  #onReset(): void {
    if (this.#panic.message !== undefined) return this.#end({ reason: 'panic', detail: this.#panic.message });
    if (this.#config.onReset === 'end') return this.#end({ reason: 'reset' });
    // Two CPUs can reset the machine at the same time.
    if (this.#resetting) return;
    this.#resetting = true;
    this.#board.end();
    void this.#turns.run(() => this.#restart());
  }

  /** The same machine from power-on: a new board on new memory, which is zero. It runs, unless it is paused. */
  async #restart(): Promise<void> {
    await this.#saving.stop();
    if (!this.#still()) return;
    this.#halt?.stop();
    this.#halt = undefined;
    this.#panic.reset();
    this.pit.close();
    await this.#board.close();
    // Closed while it waited for its devices.
    if (!this.#still()) return;
    try {
      await this.#devices.useMemory(undefined);
      this.#memory.close();
      this.#memory.space.close();
      this.#memory = new SnapshotMemory(makeSpace(this.#config), (error) => this.#memoryFailed(error));
      const { space } = this.#memory;
      await this.#devices.useMemory(space);
      const battery = this.#battery;
      const proxies = (): VirtioDevice[] => this.#devices.makeProxies();
      this.#use(await Board.create(this.#kvm, this.#config, space, this.#listener(), { battery, proxies }));
      this.#resets++;
      this.#resetting = false;
      if (this.state === 'running') await this.#letRun();
    } catch (cause) {
      const error = cause instanceof VmmError ? cause : new VmmError('ERR_SYSTEM', 'the restart failed', { cause });
      this.#end({ reason: 'failed', detail: `the restart failed: ${error.message}`, error });
    }
  }

  /** The first end of a restored guest's rest: what came meanwhile is looked at. */
  #goOn(): void {
    this.#isRestored = false;
    for (const device of this.#devices.quiescables) device.resume();
    this.#board.pci?.resume();
    this.#board.chipset.channel.cut();
  }

  /** Memory that is still in a snapshot can't be had: no vCPU runs any more by now. */
  #memoryFailed(error: VmmError): void {
    // While it is being restored, restore() asks for it.
    if (!this.#hasBoard()) return;
    this.#end({ reason: 'failed', detail: error.message, error });
  }

  /** The first end counts; vCPUs are parked before anyone is told. */
  #end(status: EndStatus): void {
    if (this.#status) return;
    const panic = this.#panic.message;
    const seen = panic !== undefined && (status.reason === 'halted' || status.reason === 'poweroff');
    const told = seen ? { reason: 'panic' as const, detail: panic } : status;
    // What ended a vCPU may have been the lack of its memory, which says more.
    const error = told.reason === 'failed' ? this.#memory.failure : undefined;
    const final = error ? { reason: 'failed' as const, detail: error.message, error } : told;
    this.#status = final;
    // One that holds the machine must not hold its end; what is of an instant before is of use still.
    this.#saving.end();
    this.#halt?.stop();
    this.#panic.reset();
    this.#life.state = final.reason === 'failed' ? 'failed' : 'stopped';
    // A vCPU that waits in the exit which ended the machine stays there; the others leave the guest.
    this.#board.end();
    void this.#turns.run(async () => {
      try {
        await this.#board.park();
        this.pit.close();
        this.console.end();
      } finally {
        this.#holdLoop(false);
        this.#resolveEnded(final);
      }
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
        this.#turns.run(async () => {
          // What a device has yet to answer is no halt, and the other CPUs must not wait for it.
          if (this.state !== 'running' || this.#resetting || this.#board.isBeingServed) return;
          await this.#board.park();
          if (this.#still() && !this.#resetting && !look()) this.#board.resume();
        }),
      onHalted: () => this.#end({ reason: 'halted', detail: 'every CPU is halted with interrupts off' }),
    });
  }

  /** While it runs, the machine keeps itself and the event loop alive. */
  #holdLoop(hold: boolean): void {
    if (hold === running.has(this)) return;
    if (hold) running.add(this);
    else running.delete(this);
    this.#kvm.holdEventLoop(hold);
  }
}

/**
 * Boards without a machine around them, for the tests of their state: made from a flat guest or blank, paused, saved, and
 * their memory copied as bytes.
 */
import { onTestFinished } from 'vitest';
import { hostClock } from '../../lib/base/clock.js';
import type { SavedPart } from '../../lib/base/saved-state.js';
import { silentLogger } from '../../lib/base/logger.js';
import { ramRanges } from '../../lib/boot/index.js';
import { newRtcBattery } from '../../lib/chipset/index.js';
import { Kvm } from '../../lib/kvm/index.js';
import { Board } from '../../lib/machine/board.js';
import { MachinePit } from '../../lib/machine/machine-pit.js';
import { checkMachineOptions, type MachineOptions } from '../../lib/machine/options.js';
import type { ClockMode } from '../../lib/machine/state/clock-mode.js';
import { restoreBoard, saveBoard, type RestoredBoard } from '../../lib/machine/state/board-state.js';
import { AddressSpace } from '../../lib/memory/index.js';
import { assemble } from './assemble.js';

export interface BoardRigOptions {
  readonly guest: string;
  readonly mode?: 'real16' | 'long64';
  readonly defines?: Record<string, number>;
  readonly cpus?: number;
  readonly pit?: MachineOptions['pit'];
}

export class BoardRig {
  readonly kvm: Kvm;
  readonly board: Board;
  readonly space: AddressSpace;
  readonly time: MachinePit;
  /** What the guest wrote on COM1. */
  readonly output: string[];
  readonly ends: string[];
  readonly options: BoardRigOptions;
  restored: RestoredBoard | undefined;
  #closing: Promise<void> | undefined;
  #held = false;
  #attached = false;

  private constructor(parts: Pick<BoardRig, 'kvm' | 'board' | 'space' | 'time' | 'output' | 'ends' | 'options'>) {
    this.kvm = parts.kvm;
    this.board = parts.board;
    this.space = parts.space;
    this.time = parts.time;
    this.output = parts.output;
    this.ends = parts.ends;
    this.options = parts.options;
  }

  static async make(options: BoardRigOptions, blank = false): Promise<BoardRig> {
    const { guest, mode = 'long64', defines = {}, cpus = 1, pit } = options;
    const address = mode === 'long64' ? 0x10000 : 0x1000;
    const config = checkMachineOptions({
      memory: '4MiB',
      debugExit: true,
      cpus,
      ...(pit ? { pit } : {}),
      boot: { flat: assemble(guest, address, defines), address, mode },
    });
    const kvm = Kvm.open();
    const space = new AddressSpace({ ranges: ramRanges(config.memoryBytes), backing: config.memoryBacking });
    const output: string[] = [];
    const ends: string[] = [];
    const board = await Board.create(
      kvm,
      config,
      space,
      {
        onFatalExit: (_vcpu, exit) => ends.push(exit.kind),
        onFault: (fault) => ends.push(String(fault.cause)),
        onRunFailure: (_vcpu, errno) => ends.push(`errno ${errno}`),
        onPowerOff: () => ends.push('poweroff'),
        onReset: () => ends.push('reset'),
        onPanic: (kind) => ends.push(kind),
        onDebugExit: (code) => ends.push(`exit ${code}`),
        onConsoleOutput: (bytes) => output.push(Buffer.from(bytes).toString('latin1')),
      },
      { battery: newRtcBattery(), proxies: () => [], blank },
    );
    const time = new MachinePit({ ...config, logger: silentLogger }, (gpa, length) => space.read(gpa, length));
    const rig = new BoardRig({ kvm, board, space, time, output, ends, options });
    if (!blank) rig.#attach();
    onTestFinished(() => rig.close());
    return rig;
  }

  run(): void {
    this.time.run();
    this.board.resume();
    this.#hold(true);
  }

  async pause(): Promise<void> {
    await this.board.park();
    this.#hold(false);
    this.time.pause('freeze');
    await this.time.settled();
  }

  save(): SavedPart {
    return saveBoard(this.board, this.time.save(), { kvm: this.kvm, clock: hostClock });
  }

  /** A new board like this one, with this one's memory and the state `part`. Not running. */
  async clone(part: SavedPart, mode: ClockMode = 'freeze', mask = false): Promise<BoardRig> {
    const other = await BoardRig.make(this.options, true);
    for (const { gpa, sizeBytes } of this.space.ranges) other.space.write(gpa, this.space.read(gpa, sizeBytes));
    // As through a file.
    const restored = restoreBoard(
      other.board,
      structuredClone(part),
      { kvm: other.kvm, clock: hostClock },
      { mode, memory: other.space, mask },
    );
    other.restored = restored;
    other.#attach(restored.time);
    return other;
  }

  u32(gpa: number): number {
    return new DataView(this.space.read(gpa, 4).buffer).getUint32(0, true);
  }

  u64(gpa: number): bigint {
    return new DataView(this.space.read(gpa, 8).buffer).getBigUint64(0, true);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #attach(restored?: RestoredBoard['time']): void {
    this.time.attach(this.board, restored);
    this.#attached = true;
  }

  #hold(hold: boolean): void {
    if (hold !== this.#held) this.kvm.holdEventLoop(hold);
    this.#held = hold;
  }

  async #close(): Promise<void> {
    this.board.end();
    await this.board.park();
    this.#hold(false);
    // A board that refused its state has no time of a guest's.
    if (this.#attached) this.time.close();
    await this.board.close();
    this.space.close();
    this.kvm.close();
  }
}

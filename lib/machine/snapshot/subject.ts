/**
 * A machine as the ways to save see it (snapshot/save.ts): stopped within a turn of its life, so that no pause, restart or close
 * comes between; devices first, then vCPUs, then the guest's time; let go in the reverse order.
 */
import { VmmError } from '../../base/errors.js';
import type { SavedPart } from '../../base/saved-state.js';
import type { TurnQueue } from '../../base/turn-queue.js';
import type { SaveSubject } from '../../snapshot/save.js';
import { quiesce } from '../../vsp/index.js';
import type { Board } from '../board.js';
import type { MachineDevices } from '../machine-devices.js';
import type { MachinePit } from '../machine-pit.js';
import { type MachineConfig, noVirtioDevices } from '../options.js';
import { saveBoard } from '../state/board-state.js';
import type { Kvm } from '../../kvm/index.js';
import type { DiskCuts } from './disk-cuts.js';
import { saveConfig } from './saved-config.js';

/** What of a machine is needed. */
export interface SubjectMachine {
  readonly config: MachineConfig;
  readonly kvm: Kvm;
  readonly devices: MachineDevices;
  readonly pit: MachinePit;
  readonly turns: TurnQueue;
  readonly board: () => Board;
  /** Takes the vCPUs out of the guest; whether they ran. @throws VmmError ERR_STATE when there is no guest to be saved; AbortError */
  hold(signal: AbortSignal | undefined): Promise<boolean>;
  /** The end of hold(); nothing when the machine has ended since. */
  letGo(): Promise<void>;
}

export interface SubjectOptions {
  /** The snapshot's id, after which the images are named in which disks go on. */
  readonly generation: string;
  /** For further files of the snapshot. */
  readonly folder: string;
  /** Called while the machine is stopped and its state has been taken. */
  readonly onInstant: () => void;
}

/** Before anything is written. @throws VmmError ERR_SNAPSHOT_REFUSED for a machine with a part that has no state to be saved. */
export function requireSavable({ portDevices, virtioDevices }: MachineConfig): void {
  const option =
    portDevices.length > 0 ? 'portDevices' : virtioDevices === noVirtioDevices ? undefined : 'virtioDevices';
  if (option === undefined) return;
  throw new VmmError('ERR_SNAPSHOT_REFUSED', `${option}: devices of the user's own have no state that could be saved`);
}

export class MachineSubject implements SaveSubject {
  readonly #machine: SubjectMachine;
  readonly #options: SubjectOptions;
  #cuts: DiskCuts | undefined;
  #endTurn: ((isKept: boolean) => Promise<void>) | undefined;

  constructor(machine: SubjectMachine, options: SubjectOptions) {
    this.#machine = machine;
    this.#options = options;
  }

  async stop(signal: AbortSignal | undefined): Promise<bigint> {
    const { config, turns, devices } = this.#machine;
    const { generation, folder } = this.#options;
    const cuts = await devices.beginCuts({ generation, folder, signal });
    this.#cuts = cuts;
    return new Promise<bigint>((resolve, reject) => {
      const turn = turns.run(async () => {
        const release = await this.#prepare(signal);
        const startNs = config.clock.nowNs();
        try {
          await this.#machine.hold(signal);
        } catch (error) {
          release();
          throw error;
        }
        await new Promise<void>((go) => {
          this.#endTurn = async (isKept) => {
            this.#endTurn = undefined;
            if (!isKept) await cuts.undo().catch((error: unknown) => this.#warn('a disk stays cut', error));
            try {
              await this.#machine.letGo();
            } finally {
              release();
              go();
              await turn;
            }
          };
          resolve(startNs);
        });
      }, signal);
      turn.catch(reject);
    }).catch(async (error: unknown) => {
      await cuts.cancel();
      throw error;
    });
  }

  async saveState(): Promise<readonly SavedPart[]> {
    const { config, kvm, devices, pit } = this.#machine;
    await pit.settled();
    await this.#cuts?.take();
    const now = this.#machine.board();
    const context = { kvm, clock: config.clock, pci: now.pci };
    const parts = [saveConfig(config), devices.saveState(), saveBoard(now, pit.save(), context)];
    this.#options.onInstant();
    return parts;
  }

  async go(isKept: boolean): Promise<void> {
    if (!isKept) await this.#cuts?.cancel();
    await this.#endTurn?.(isKept);
  }

  /** After the stop that was kept: what the snapshot has of each disk, once that is durable. @throws SystemError */
  async disks(): Promise<SavedPart[]> {
    return (await this.#cuts?.durable()) ?? [];
  }

  /** The snapshot failed, perhaps after the stop that was kept: disks let go of what was kept for it. Idempotent. */
  async release(): Promise<void> {
    const { clock } = this.#machine.config;
    await this.#cuts?.release(clock).catch((error: unknown) => this.#warn('a disk stays cut', error));
  }

  #warn(what: string, error: unknown): void {
    this.#machine.config.logger.log('warn', `${this.#machine.config.name}: ${what}: ${String(error)}`);
  }

  /** Every device at rest. @throws VmmError ERR_SNAPSHOT_REFUSED, AbortError */
  async #prepare(signal: AbortSignal | undefined): Promise<() => void> {
    const { config, devices } = this.#machine;
    const { pci } = this.#machine.board();
    return quiesce([...devices.quiescables, ...(pci ? [pci] : [])], { clock: config.clock, signal });
  }
}

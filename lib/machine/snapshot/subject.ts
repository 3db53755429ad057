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
import type { MachineConfig } from '../options.js';
import { saveBoard } from '../state/board-state.js';
import type { Kvm } from '../../kvm/index.js';
import { saveConfig } from './saved-config.js';

/** What of a machine is needed. */
export interface SubjectMachine {
  readonly config: MachineConfig;
  readonly kvm: Kvm;
  readonly devices: MachineDevices;
  readonly pit: MachinePit;
  readonly turns: TurnQueue;
  board(): Board;
  /** Takes the vCPUs out of the guest, if they run. @throws VmmError ERR_STATE when there is no guest to be saved; AbortError */
  hold(signal: AbortSignal | undefined): Promise<void>;
  /** The end of hold(); nothing when the machine has ended since. */
  letGo(): Promise<void>;
}

export class MachineSubject implements SaveSubject {
  readonly #machine: SubjectMachine;
  /** Called while the machine is stopped and its state has been taken. */
  readonly #onInstant: () => void;
  #endTurn: (() => Promise<void>) | undefined;

  constructor(machine: SubjectMachine, onInstant: () => void) {
    this.#machine = machine;
    this.#onInstant = onInstant;
  }

  stop(signal: AbortSignal | undefined): Promise<bigint> {
    const { config, turns } = this.#machine;
    return new Promise((resolve, reject) => {
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
          this.#endTurn = async () => {
            this.#endTurn = undefined;
            await this.#machine.letGo();
            release();
            go();
            await turn;
          };
          resolve(startNs);
        });
      }, signal);
      turn.catch(reject);
    });
  }

  async saveState(): Promise<readonly SavedPart[]> {
    const { config, kvm, devices, pit, board } = this.#machine;
    await pit.settled();
    const now = board();
    const context = { kvm, clock: config.clock, pci: now.pci };
    const parts = [saveConfig(config), devices.saveState(), saveBoard(now, pit.save(), context)];
    this.#onInstant();
    return parts;
  }

  async go(): Promise<void> {
    await this.#endTurn?.();
  }

  /** Every device at rest. @throws VmmError ERR_SNAPSHOT_REFUSED, AbortError */
  async #prepare(signal: AbortSignal | undefined): Promise<() => void> {
    const { config, devices, board } = this.#machine;
    if (config.portDevices.length > 0) {
      throw new VmmError(
        'ERR_SNAPSHOT_REFUSED',
        "portDevices: devices of the user's own have no state that could be saved",
      );
    }
    const { pci } = board();
    return quiesce([...devices.quiescables, ...(pci ? [pci] : [])], { clock: config.clock, signal });
  }
}

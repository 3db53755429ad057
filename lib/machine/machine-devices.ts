/**
 * The devices that a machine lends its guest, for the machine's life: providers over backends, and the I/O engine under
 * them. The guest's sides (virtio devices) are made anew for each board; a reset replaces the guest's memory too, and
 * with it what the engine moves data to. It joins vsp and vdp; what happens to a request is decided there.
 */
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import { type AddressSpace, NativeIoEngine } from '../memory/index.js';
import { BlockDevice, type VirtioDevice } from '../vdp/index.js';
import { BlockProvider, type DeviceContract, type RebindOptions, type RebindReport } from '../vsp/index.js';
import type { BlockSource } from '../vsp/index.js';
import type { DiskConfig } from './disk-options.js';
import { IoEngineSlot } from './io-engine-slot.js';

/** A device of the host, lent to the guest: `vm.device(id)`. */
export interface LentDevice {
  readonly id: string;
  /** Its functions: by whom they are done, how often, at what cost; and the backend. */
  readonly contract: DeviceContract;
  /**
   * Another backend from now on, while the guest runs and has requests in flight. A refusal leaves the old one serving.
   *
   * @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, ERR_TIMEOUT, ERR_CLOSED, ERR_SYSTEM; AbortError.
   */
  rebind(backend: BlockSource, options?: RebindOptions): Promise<RebindReport>;
  /** Looks whether the backend has another size, and tells the guest; the size in bytes. @throws VmmError */
  refresh(): Promise<number>;
}

export interface MachineDevicesOptions {
  /** The guest's, to begin with: some backends read their image's metadata when they are opened. */
  readonly memory: AddressSpace;
  readonly disks: readonly DiskConfig[];
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal?: AbortSignal | undefined;
}

export class MachineDevices {
  readonly #disks: readonly BlockProvider[];
  readonly #slot: IoEngineSlot;

  private constructor(disks: readonly BlockProvider[], slot: IoEngineSlot) {
    this.#disks = disks;
    this.#slot = slot;
  }

  /**
   * Opens every backend; what was opened is closed again when a later one fails.
   *
   * @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, ERR_SYSTEM; AbortError.
   */
  static async open(options: MachineDevicesOptions): Promise<MachineDevices> {
    const { clock, logger, signal } = options;
    const slot = new IoEngineSlot((memory) => new NativeIoEngine(memory));
    const disks: BlockProvider[] = [];
    const devices = new MachineDevices(disks, slot);
    try {
      await slot.use(options.memory);
      for (const { id, backend, readOnly, copyOnWriteBytes: maxBytes } of options.disks) {
        const copyOnWrite = maxBytes === undefined ? undefined : { maxBytes };
        disks.push(
          await BlockProvider.open(backend, { id, readOnly, copyOnWrite, engine: slot, clock, logger, signal }),
        );
      }
      return devices;
    } catch (error) {
      await devices.close();
      throw error;
    }
  }

  /** The guest's memory from now on; the one before it is no longer touched when this resolves. */
  async useMemory(memory: AddressSpace | undefined): Promise<void> {
    await this.#slot.use(memory);
  }

  /** The guest's sides, for a new board. */
  makeProxies(): VirtioDevice[] {
    return this.#disks.map((disk) => new BlockDevice(disk));
  }

  /** @throws RangeError for an id that no device has, with those that there are. */
  find(id: string): LentDevice {
    const disk = this.#disks.find((candidate) => candidate.id === id);
    if (!disk) {
      const ids = this.#disks.map((candidate) => `'${candidate.id}'`).join(', ');
      throw new RangeError(`there is no device '${id}'; the machine has ${ids === '' ? 'none' : ids}`);
    }
    return {
      id,
      get contract() {
        return disk.contract;
      },
      rebind: (backend, options) => disk.rebind(backend, options),
      refresh: async () => (await disk.refreshGeometry()).sizeBytes,
    };
  }

  inspect(): unknown {
    const disks = this.#disks.map((disk) => [disk.id, { contract: disk.contract, ...disk.inspect() }]);
    return { requestsInFlight: this.#slot.inFlight, disks: Object.fromEntries(disks) as unknown };
  }

  /** Makes durable what was promised, and gives locks and descriptors back. After the board. Idempotent. */
  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.#disks.map((disk) => disk.close()));
    await this.#slot.close();
    const failure = closed.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
  }
}

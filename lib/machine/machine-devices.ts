/**
 * The devices that a machine lends its guest, for the machine's life: providers over backends, and the I/O engine under
 * them. The guest's sides (virtio devices) are made anew for each board; a reset replaces the guest's memory too, and
 * with it what the engine moves data to. It joins vsp and vdp; what happens to a request is decided there.
 */
import { DiskCuts } from './snapshot/disk-cuts.js';
import type { Clock } from '../base/clock.js';
import { AbortError, VmmError } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { Savable, SavedPart } from '../base/saved-state.js';
import { type AddressSpace, NativeIoEngine } from '../memory/index.js';
import { BlockDevice, ConsoleDevice, EntropyDevice, NetDevice, type VirtioDevice } from '../vdp/index.js';
import {
  BlockProvider,
  CLOSE_MS,
  type ConsoleBackend,
  ConsoleProvider,
  EntropyProvider,
  type CutOptions,
  NetLimiter,
  NetProvider,
  type Quiescable,
  type RestoredDisk,
  waitFor,
} from '../vsp/index.js';
import type { DeviceConfigs } from './device-options.js';
import { IoEngineSlot } from './io-engine-slot.js';
import { type LentDevice, lentConsolePort, lentDisk, lentEntropy, lentNic } from './lent-device.js';
import { lentDevicesState } from './lent-devices-state.js';
import { claimMac, type MacClaim } from './mac-claims.js';

/** No id of a user's has a colon. */
const CONSOLE = 'console:ports';

export interface MachineDevicesOptions extends DeviceConfigs {
  /** The machine's. */
  readonly name: string;
  /** The guest's, to begin with: some backends read their image's metadata when they are opened. */
  readonly memory: AddressSpace;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal?: AbortSignal | undefined;
}

export class MachineDevices implements Savable {
  readonly #slot = new IoEngineSlot((memory) => new NativeIoEngine(memory));
  readonly #disks: BlockProvider[] = [];
  readonly #nics: NetProvider[] = [];
  /** Of nics that have limits. */
  readonly #limiters = new Map<string, NetLimiter>();
  readonly #macs: MacClaim[] = [];
  #console: ConsoleProvider | undefined;
  #entropy: EntropyProvider | undefined;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #lent = new Map<string, LentDevice>();
  /** After close(): when nothing of the devices touches memory any more, and that nobody waited for it. */
  #released = Promise.resolve();
  #isHeld = false;

  private constructor({ name, clock, logger }: MachineDevicesOptions) {
    this.#name = name;
    this.#clock = clock;
    this.#logger = logger;
  }

  /**
   * Opens every backend; what was opened is closed again when a later one fails.
   *
   * @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, ERR_DEVICE, ERR_STATE, ERR_SYSTEM; AbortError; RangeError for an MTU
   *   that a nic's backend has not.
   */
  static async open(options: MachineDevicesOptions): Promise<MachineDevices> {
    const devices = new MachineDevices(options);
    try {
      await devices.#slot.use(options.memory);
      await devices.#openDisks(options);
      await devices.#openNics(options);
      await devices.#openConsole(options);
      await devices.#openEntropy(options);
      return devices;
    } catch (error) {
      // Nothing was written yet: what a close has to say must not hide why the machine can't be made.
      await devices.close().catch(() => undefined);
      throw error;
    }
  }

  async #openDisks({ name: machine, disks, clock, logger, signal }: MachineDevicesOptions): Promise<void> {
    for (const { id, backend, readOnly, copyOnWriteBytes: maxBytes, limits } of disks) {
      const copyOnWrite = maxBytes === undefined ? undefined : { maxBytes };
      const context = { machine, id, readOnly, copyOnWrite, limits, engine: this.#slot, clock, logger, signal };
      const disk = await BlockProvider.open(backend, context);
      this.#disks.push(disk);
      this.#lent.set(id, lentDisk(disk));
    }
  }

  async #openNics({ name: machine, nics, clock, logger, signal }: MachineDevicesOptions): Promise<void> {
    for (const { id, backend: source, mac: wanted, mtuBytes, limits } of nics) {
      if (signal?.aborted === true) throw new AbortError(signal);
      const claim = claimMac({ machine, id, mac: wanted });
      this.#macs.push(claim);
      const { mac } = claim;
      const context = { id, mac, clock, logger };
      const limiter = limits && new NetLimiter(limits, clock);
      const opened = await source.open({ ...context, signal });
      const backend = limiter?.around(opened) ?? opened;
      let nic: NetProvider;
      try {
        nic = new NetProvider({ machine, id, backend, mac, mtuBytes, clock, logger });
      } catch (error) {
        await backend.close();
        throw error;
      }
      this.#nics.push(nic);
      this.#lent.set(id, lentNic(nic, context, limiter));
      if (limiter !== undefined) this.#limiters.set(id, limiter);
    }
  }

  async #openConsole({ consolePorts, clock, logger, signal }: MachineDevicesOptions): Promise<void> {
    if (consolePorts.length === 0) return;
    const backends: ConsoleBackend[] = [];
    try {
      for (const { backend } of consolePorts) {
        if (signal?.aborted === true) throw new AbortError(signal);
        backends.push(await backend.open());
      }
    } catch (error) {
      await Promise.all(backends.map((backend) => backend.close()));
      throw error;
    }
    const ports = consolePorts.map(({ name, terminal: isConsole }, index) => {
      return { name, isConsole, backend: backends[index]! };
    });
    const provider = new ConsoleProvider({ id: CONSOLE, ports, clock, logger });
    this.#console = provider;
    consolePorts.forEach(({ id }, index) => this.#lent.set(id, lentConsolePort(id, provider.ports[index]!)));
  }

  async #openEntropy({ entropy, clock, signal }: MachineDevicesOptions): Promise<void> {
    if (entropy === undefined) return;
    if (signal?.aborted === true) throw new AbortError(signal);
    const { id, rate } = entropy;
    this.#entropy = new EntropyProvider({ id, backend: await entropy.backend.open(), rate, clock });
    this.#lent.set(id, lentEntropy(this.#entropy));
  }

  /**
   * The guest's memory from now on; no device's request touches the one before it when this resolves. Something that the
   * kernel does not end (a flush of a backend that was left) is waited for in bounded time; it keeps its mapping.
   */
  async useMemory(memory: AddressSpace | undefined): Promise<void> {
    await this.#inTime(this.#slot.use(memory)).catch((error: unknown) => {
      if (!isTimeout(error)) throw error;
      this.#logger.log('warn', 'a restart leaves file requests behind', { error });
    });
  }

  /** The guest's sides, for a new board. */
  makeProxies(): VirtioDevice[] {
    const proxies: VirtioDevice[] = this.#disks.map((disk) => new BlockDevice(disk));
    for (const nic of this.#nics) proxies.push(new NetDevice(nic.id, nic));
    if (this.#console) proxies.push(new ConsoleDevice(CONSOLE, this.#console.ports));
    if (this.#entropy) proxies.push(new EntropyDevice(this.#entropy.id, this.#entropy, this.#clock));
    return proxies;
  }

  /** What has to come to rest for a snapshot, beside the PCI bus. Ports and generators do with its queues. */
  get quiescables(): readonly Quiescable[] {
    return [...this.#disks, ...this.#nics];
  }

  /**
   * Prepares to cut every disk at an instant of a snapshot (vsp/block/cut.ts), while the guest runs.
   *
   * @throws VmmError ERR_SNAPSHOT_REFUSED naming a disk that can't be cut; AbortError. Nothing is left behind then.
   */
  beginCuts(options: CutOptions): Promise<DiskCuts> {
    return DiskCuts.begin(this.#disks, options);
  }

  /** In disks that were just opened: the changed blocks that a snapshot has of one. @throws VmmError ERR_SNAPSHOT */
  fillDisk(id: string, changes: NonNullable<RestoredDisk['changes']>): void {
    this.#disks.find((disk) => disk.id === id)?.fill(changes);
  }

  /** What each device promised its guest, and on what it stood. Data of disks is not in it. */
  saveState(): SavedPart {
    return lentDevicesState.save({
      devices: this.#providers().map(([id, provider]) => {
        const backends = this.#lent.has(id) ? [id] : [...this.#lent.keys()].filter((each) => this.#isPort(each));
        return {
          id,
          state: provider.saveState(),
          // Descriptions are plain, but for details that are not there.
          backends: backends.map((each) => {
            const text = JSON.stringify(this.#lent.get(each)!.contract.backend);
            return { id: each, description: JSON.parse(text) as Record<string, unknown> };
          }),
        };
      }),
    });
  }

  /**
   * In devices that were just opened, with the same ids, over any backends: each keeps what its guest knows. Nics are
   * silent until resumed.
   *
   * @throws VmmError ERR_SNAPSHOT for other devices; ERR_DISK_IMAGE, ERR_DEVICE for a backend that can't serve one.
   */
  restoreState(part: SavedPart): void {
    const { devices } = lentDevicesState.load(part);
    const providers = this.#providers();
    const names = (ids: readonly string[]): string => (ids.length === 0 ? 'none' : ids.join(', '));
    const [saved, present] = [devices.map(({ id }) => id), providers.map(([id]) => id)].map(names);
    if (saved !== present) {
      throw new VmmError('ERR_SNAPSHOT', `the machine's devices are: ${present!}; in the snapshot: ${saved!}`);
    }
    devices.forEach(({ state }, index) => providers[index]![1].restoreState(state));
    this.#nics.forEach((nic, index) => this.#claimAnew(nic, index));
  }

  #providers(): [string, Savable][] {
    const rest = [this.#console, this.#entropy].filter((provider) => provider !== undefined);
    return [...this.#disks, ...this.#nics, ...rest].map((provider) => [provider.id, provider]);
  }

  #isPort(id: string): boolean {
    return this.#lent.get(id)!.contract.class === 'console';
  }

  /** A restored guest has the address that it had. Where another open machine has it, both do: only their networks can differ. */
  #claimAnew({ id, mac }: NetProvider, index: number): void {
    if (this.#macs[index]!.mac === mac) return;
    try {
      const claim = claimMac({ machine: this.#name, id, mac });
      this.#macs[index]!.release();
      this.#macs[index] = claim;
    } catch (error) {
      if (!(error instanceof VmmError) || error.code !== 'ERR_STATE') throw error;
      this.#logger.log('warn', `${error.message}, and this nic's too; they must not meet in one network`);
    }
  }

  /** @throws RangeError for an id that no device has, with those that there are. */
  find(id: string): LentDevice {
    const device = this.#lent.get(id);
    if (device) return device;
    const ids = [...this.#lent.keys()].map((known) => `'${known}'`).join(', ');
    throw new RangeError(`there is no device '${id}'; the machine has ${ids === '' ? 'none' : ids}`);
  }

  inspect(): unknown {
    const details = new Map([...this.#disks, ...this.#nics].map((device) => [device.id, device.inspect()]));
    const devices = [...this.#lent].map(([id, { contract }]) => {
      const limiter = this.#limiters.get(id);
      return [id, { contract, ...details.get(id), ...(limiter && { limiter: limiter.inspect() }) }];
    });
    return { requestsInFlight: this.#slot.inFlight, devices: Object.fromEntries(devices) as unknown };
  }

  /**
   * The machine ends, no CPU runs: disks are closed from now on, so that the board, whose devices wait for their requests,
   * waits for no disk that never answers (vsp/block/closing.ts). Idempotent.
   */
  beginClose(): void {
    for (const disk of this.#disks) disk.close().catch(() => undefined); // close() reports it
  }

  /**
   * Makes durable what was promised, and gives locks and descriptors back. After the board. Idempotent.
   *
   * @throws VmmError ERR_TIMEOUT when a disk was given up; what a backend's close throws.
   */
  async close(): Promise<void> {
    const providers = [...this.#disks, ...this.#nics, this.#console, this.#entropy].filter(
      (provider) => provider !== undefined,
    );
    const closed = await Promise.allSettled(providers.map((provider) => provider.close()));
    // Only now: until its port is gone, frames with the address may be under way.
    for (const claim of this.#macs) claim.release();
    const failures = closed.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
    const released = Promise.all(this.#disks.map((disk) => disk.released)).then(() => this.#slot.close());
    this.#released = released.catch(() => undefined);
    this.#isHeld = failures.some(isTimeout);
    if (!this.#isHeld) {
      // No disk's request is left, but perhaps a flush that a change of backend was aborted in.
      await this.#inTime(released).catch((error: unknown) => {
        this.#isHeld = isTimeout(error);
        failures.push(error);
      });
    }
    if (failures.length > 0) throw failures[0];
  }

  /**
   * After close(): takes the guest's memory back, before it resolves; only where a disk was given up not before that has
   * let go of it, since a backend or the kernel may still move data.
   */
  async release(memory: AddressSpace): Promise<void> {
    const released = this.#released.then(() => memory.close());
    if (!this.#isHeld) await released;
  }

  #inTime(done: Promise<void>): Promise<void> {
    const maxNs = BigInt(CLOSE_MS) * 1_000_000n;
    return waitFor(done, { clock: this.#clock, maxNs, what: 'file requests of the disks' });
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof VmmError && error.code === 'ERR_TIMEOUT';
}

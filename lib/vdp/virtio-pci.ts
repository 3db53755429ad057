/**
 * A virtio device as a function on the PCI bus (virtio 1.2, 4.1, modern): ids, capabilities, two BARs. Behind the first
 * BAR stand registers (virtio-common-config), the device's configuration space and the queues' notification addresses;
 * behind the second the MSI-X table. It joins VirtioLifecycle with interrupts and doorbells and decides nothing else.
 *
 *   BAR 0: 0x0000 common | 0x1000 ISR | 0x2000 device configuration | 0x3000 notify, 4 bytes a queue      BAR 1: MSI-X
 */
import { PciCapId, PciCommand, PciHeader } from '../abi/pci.js';
import {
  CommonCfg,
  VIRTIO_PCI_DEVICE_ID_BASE,
  VIRTIO_PCI_REVISION,
  VIRTIO_PCI_VENDOR_ID,
  VirtioPciCapType,
} from '../abi/virtio-pci.js';
import type { Clock } from '../base/clock.js';
import type { Savable, SavedPart } from '../base/saved-state.js';
import type { Logger } from '../base/logger.js';
import type { AccessSize, BusDevice, InterruptLine } from '../bus/index.js';
import type { DeviceMemory } from '../memory/device-memory.js';
import { Misbehaviour } from './misbehaviour.js';
import { ConfigSpace } from './pci/config-space.js';
import type { PciBar, PciFunction } from './pci/function.js';
import { type InterruptVector, MAX_MSIX_VECTORS, Msix } from './pci/msix.js';
import { VirtioCommonConfig } from './virtio-common-config.js';
import type { VirtioDevice } from './virtio-device.js';
import { VirtioInterrupts } from './virtio-interrupts.js';
import type { MakeQueue } from './lifecycle-contract.js';
import { VirtioLifecycle } from './virtio-lifecycle.js';
import { addPciCfgWindow, capabilityBody } from './virtio-pci-capabilities.js';
import { virtioPciState } from './virtio-state.js';

/** Takes a guest's writes to one address without an exit to JavaScript. Neither call throws. */
export interface Doorbell {
  /** Listens at this address from now on; undefined: nowhere. */
  place(gpa: number | undefined): void;
  close(): void;
}

export interface VirtioPciOptions {
  readonly device: VirtioDevice;
  readonly memory: DeviceMemory;
  readonly makeQueue: MakeQueue;
  readonly makeVector: () => InterruptVector;
  readonly makeDoorbell: (ring: () => void) => Doorbell;
  readonly intx: InterruptLine;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The device failed outside of a guest's access: a bug of ours. */
  readonly onFailure: (cause: unknown) => void;
}

const REGISTERS_BAR = 0;
const MSIX_BAR = 1;
const REGION_BYTES = 0x1000;
const Region = { COMMON: 0x0000, ISR: 0x1000, DEVICE: 0x2000, NOTIFY: 0x3000, END: 0x4000 } as const;
const NOTIFY_MULTIPLIER = 4;

export class VirtioPciFunction implements PciFunction, Savable {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly bars: readonly PciBar[];

  readonly #device: VirtioDevice;
  readonly #onFailure: (cause: unknown) => void;
  readonly #makeDoorbell: (ring: () => void) => Doorbell;
  readonly #misbehaviour: Misbehaviour;
  readonly #life: VirtioLifecycle;
  readonly #common: VirtioCommonConfig;
  readonly #msix: Msix;
  readonly #interrupts: VirtioInterrupts;
  /** By queue index; made when the queue is first used. */
  readonly #doorbells: (Doorbell | undefined)[] = [];
  #ringing: readonly number[] = [];
  #baseGpa: number | undefined;
  /** Restored and not released: messages are kept pending, for an interrupt controller that may not be restored yet. */
  #isRestored = false;

  /** @throws RangeError for a device with more queues or configuration than there is room for. */
  constructor(options: VirtioPciOptions) {
    const { device } = options;
    if (device.queueSizes.length * NOTIFY_MULTIPLIER > REGION_BYTES || device.config.sizeBytes > REGION_BYTES) {
      throw new RangeError(`${device.name}: too many queues, or too much configuration`);
    }
    this.name = device.name;
    this.#device = device;
    this.#onFailure = options.onFailure;
    this.#makeDoorbell = options.makeDoorbell;
    this.#misbehaviour = new Misbehaviour(device.name, options.clock, options.logger);
    this.config = new ConfigSpace({
      vendorId: VIRTIO_PCI_VENDOR_ID,
      deviceId: VIRTIO_PCI_DEVICE_ID_BASE + device.deviceId,
      revision: VIRTIO_PCI_REVISION,
      classCode: device.pciClass,
      subsystemVendorId: VIRTIO_PCI_VENDOR_ID,
      subsystemId: VIRTIO_PCI_DEVICE_ID_BASE + device.deviceId,
    });
    this.config.addBar(REGISTERS_BAR, Region.END);
    this.#addCapabilities();
    // One for configuration changes, one for each queue.
    const vectors = Math.min(device.queueSizes.length + 1, MAX_MSIX_VECTORS);
    this.#msix = new Msix(this.config, {
      name: `${device.name}:msix`,
      bar: MSIX_BAR,
      vectors: Array.from({ length: vectors }, options.makeVector),
    });
    this.#interrupts = new VirtioInterrupts(this.config, this.#msix, options.intx);
    this.#life = new VirtioLifecycle({
      device,
      memory: options.memory,
      makeQueue: options.makeQueue,
      misbehaviour: this.#misbehaviour,
      listener: {
        onQueueInterrupt: (setup) => this.#interrupts.queue(setup.vector),
        onConfigInterrupt: () => this.#interrupts.config(this.#life.configVector),
        onQueues: (indices) => this.#ringFor(indices),
        onReset: () => {
          this.#common.reset();
          this.#interrupts.reset();
        },
        onFailure: options.onFailure,
      },
    });
    this.config.watch(PciHeader.COMMAND, 2, { onWrite: () => this.#commandWritten() });
    this.#commandWritten();
    this.#common = new VirtioCommonConfig(this.#life, this.#misbehaviour, (vector) =>
      this.#interrupts.acceptVector(vector),
    );
    this.bars = [
      { index: REGISTERS_BAR, device: this.#registers(), onPlaced: (gpa) => this.#onPlaced(gpa) },
      { index: MSIX_BAR, device: this.#msix },
    ];
  }

  /** As a reset by the driver; the bus does not wait for the device. */
  reset(): void {
    this.#life.writeStatus(0);
    this.#msix.reset();
    this.#commandWritten();
  }

  /** For a snapshot: see VirtioLifecycle.hold. */
  hold(): void {
    this.#life.hold();
  }

  /** The end of `hold`, or of a restore. */
  release(): void {
    this.#isRestored = false;
    this.#commandWritten();
    this.#life.release();
  }

  saveState(): SavedPart {
    // First: what the device publishes now may make an interrupt.
    const life = this.#life.saveState();
    const { selects } = this.#common;
    return virtioPciState.save({ selects, isr: this.#interrupts.isr, msix: this.#msix.saveState(), life });
  }

  /** It is held then, and sends no message before `release`. */
  restoreState(part: SavedPart): void {
    const { selects, isr, msix, life } = virtioPciState.load(part);
    this.#isRestored = true;
    this.#commandWritten();
    this.#common.restoreSelects(selects);
    this.#msix.restoreState(msix);
    this.#interrupts.restoreIsr(isr);
    this.#life.restoreState(life);
  }

  /** The machine ends: resolves when the device no longer touches guest memory. Gives vectors and doorbells back. */
  async close(): Promise<void> {
    await this.#life.close();
    for (const doorbell of this.#doorbells) doorbell?.close();
    this.#msix.close();
  }

  inspect(): unknown {
    return {
      ...(this.#life.inspect() as object),
      interrupts: this.#interrupts.inspect(),
      misbehaviour: this.#misbehaviour.inspect(),
      device: this.#device.inspect(),
    };
  }

  #addCapabilities(): void {
    const add = (type: number, offset: number, length: number, extra?: number): void => {
      const body = capabilityBody({
        type,
        bar: REGISTERS_BAR,
        offset,
        length,
        ...(extra === undefined ? {} : { extra }),
      });
      this.config.addCapability(PciCapId.VENDOR, body);
    };
    add(VirtioPciCapType.COMMON, Region.COMMON, CommonCfg.SIZE);
    add(VirtioPciCapType.NOTIFY, Region.NOTIFY, NOTIFY_MULTIPLIER * this.#device.queueSizes.length, NOTIFY_MULTIPLIER);
    add(VirtioPciCapType.ISR, Region.ISR, 1);
    if (this.#device.config.sizeBytes > 0) add(VirtioPciCapType.DEVICE, Region.DEVICE, this.#device.config.sizeBytes);
    addPciCfgWindow(this.config, {
      read: (bar, offset, size) => (bar === REGISTERS_BAR && offset < Region.END ? this.#read(offset, size) : 0),
      write: (bar, offset, size, value) => {
        if (bar === REGISTERS_BAR && offset < Region.END) this.#write(offset, size, value);
        else this.#misbehaviour.count('a window onto nothing', `BAR ${bar}, offset ${offset}`);
      },
    });
  }

  #registers(): BusDevice {
    return {
      name: this.name,
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
      reset: () => this.reset(),
      inspect: () => this.inspect(),
    };
  }

  #read(offset: number, size: AccessSize): number | bigint {
    const at = offset % REGION_BYTES;
    switch (offset - at) {
      case Region.COMMON:
        return this.#common.read(at, size);
      case Region.ISR:
        return at === 0 ? this.#interrupts.takeIsr() : 0;
      case Region.DEVICE:
        return at < this.#device.config.sizeBytes ? this.#device.config.read(at, size) : 0;
      default:
        return 0;
    }
  }

  #write(offset: number, size: AccessSize, value: number | bigint): void {
    const at = offset % REGION_BYTES;
    switch (offset - at) {
      case Region.COMMON:
        return this.#common.write(at, size, value);
      case Region.DEVICE:
        if (at >= this.#device.config.sizeBytes || this.#life.isBusy) break;
        return this.#device.config.write(at, size, value);
      case Region.NOTIFY:
        if (at % NOTIFY_MULTIPLIER !== 0 || at >= NOTIFY_MULTIPLIER * this.#life.queueCount) break;
        return this.#life.notify(at / NOTIFY_MULTIPLIER);
    }
    this.#misbehaviour.count('a write to no register', `${size} bytes at ${offset}`);
  }

  /** PCI 3.0, 6.2.2: without bus mastering a function begins no access to memory; a message is one, too (6.8.3). */
  #commandWritten(): void {
    const isMaster = (this.config.command & PciCommand.MASTER) !== 0;
    this.#life.mayTransfer = isMaster;
    this.#msix.maySend = isMaster && !this.#isRestored;
  }

  #onPlaced(gpa: number | undefined): void {
    this.#baseGpa = gpa;
    this.#placeDoorbells();
  }

  /** Doorbells ring for these queues and no others. */
  #ringFor(indices: readonly number[]): void {
    for (const index of indices) {
      this.#doorbells[index] ??= this.#makeDoorbell(() => {
        try {
          this.#life.notify(index);
        } catch (cause) {
          this.#onFailure(cause);
        }
      });
    }
    this.#ringing = indices;
    this.#placeDoorbells();
  }

  #placeDoorbells(): void {
    for (const [index, doorbell] of this.#doorbells.entries()) {
      const rings = this.#baseGpa !== undefined && this.#ringing.includes(index);
      doorbell?.place(rings ? this.#baseGpa! + Region.NOTIFY + NOTIFY_MULTIPLIER * index : undefined);
    }
  }
}

/**
 * The PCI bus of a board: the host bridge and, for each virtio device, a function wired to KVM. It joins the rooms of
 * devices and of KVM; what is on the bus is the configuration's choice, and the order of the end is the board's.
 */
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type { Savable, SavedPart } from '../base/saved-state.js';
import type { AcpiContributor } from '../boot/index.js';
import type { AddressBus, DeviceFault } from '../bus/index.js';
import type { GsiRoute, Vm } from '../kvm/index.js';
import type { DeviceMemory } from '../memory/index.js';
import { type MakeQueue, PciHostBridge, type VirtioDevice, VirtioPciFunction } from '../vdp/index.js';
import type { Quiescable } from '../vsp/index.js';
import { GsiRouter } from './gsi-router.js';
import { PciWiring } from './pci-wiring.js';

export interface PciBusOptions {
  readonly vm: Vm;
  /** The routes that KVM has been given. */
  readonly wiring: readonly GsiRoute[];
  readonly ports: AddressBus;
  readonly mmio: AddressBus;
  readonly memory: DeviceMemory;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly makeQueue: MakeQueue;
  readonly devices: readonly VirtioDevice[];
  /** A device failed outside of a guest's access. */
  readonly onFault: (fault: DeviceFault) => void;
}

export class PciBus implements Quiescable, Savable {
  readonly title = 'the PCI bus';
  readonly acpi: AcpiContributor;
  readonly #bridge: PciHostBridge;
  readonly #wiring: PciWiring;
  readonly #logger: Logger;
  readonly #functions: VirtioPciFunction[] = [];

  /** @throws RangeError for more devices than there are slots, or a device that can't be a function. */
  constructor(options: PciBusOptions) {
    const { vm, ports, mmio, memory, clock, logger, makeQueue } = options;
    this.#logger = logger;
    this.#wiring = new PciWiring(vm, new GsiRouter(vm, options.wiring), logger);
    this.#bridge = new PciHostBridge({
      ports,
      mmio,
      irqLine: (gsi) => ({ set: (high) => vm.setIrqLine(gsi, high) }),
    });
    this.acpi = this.#bridge.acpi;
    for (const device of options.devices) {
      this.#bridge.add((intx) => {
        const pciFunction = new VirtioPciFunction({
          device,
          memory,
          makeQueue,
          intx,
          clock,
          logger,
          makeVector: () => this.#wiring.makeVector(),
          makeDoorbell: (ring) => this.#wiring.makeDoorbell(ring),
          onFailure: (cause) =>
            options.onFault({ kind: 'fault', device: device.name, cause, address: 0, isWrite: true }),
        });
        this.#functions.push(pciFunction);
        return pciFunction;
      });
    }
  }

  /** For a snapshot: no device takes a chain or gives one back of its own accord; what its provider has is the provider's. */
  prepare(): Promise<void> {
    for (const pciFunction of this.#functions) pciFunction.hold();
    return Promise.resolve();
  }

  /** The end of prepare(), or of a restore: every queue is looked at. */
  resume(): void {
    for (const pciFunction of this.#functions) pciFunction.release();
  }

  /** @throws VmmError ERR_SNAPSHOT_REFUSED naming a device that can't be saved. */
  saveState(): SavedPart {
    return this.#bridge.saveState();
  }

  /**
   * On the bus of a new board with the same devices, after the providers and the interrupt controllers: doorbells and message
   * routes are made as the registers say. Devices touch guest memory, and interrupt, from resume() on.
   */
  restoreState(part: SavedPart): void {
    this.#bridge.restoreState(part);
  }

  /**
   * Resets and closes every device, and gives its descriptors back. Resolves when none touches guest memory any more;
   * what CPUs that still run do to the functions in the meantime has no effect.
   */
  async close(): Promise<void> {
    this.#bridge.close();
    const closed = await Promise.allSettled(this.#functions.map((pciFunction) => pciFunction.close()));
    for (const [index, result] of closed.entries()) {
      if (result.status === 'fulfilled') continue;
      // A bug of ours, but the others and the machine's memory must not hang on it.
      this.#logger.log('error', `${this.#functions[index]!.name} could not be closed`, {
        cause: String(result.reason),
      });
    }
  }

  inspect(): unknown {
    return { ...(this.#bridge.inspect() as object), wiring: this.#wiring.inspect() };
  }
}

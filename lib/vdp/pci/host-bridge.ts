/**
 * The PCI bus of a machine: configuration ports 0xcf8 and 0xcfc (PCI 3.0, 3.2.2.3.2), bus 0 with the host bridge in slot
 * 0 and up to 31 functions, one a slot. Accesses to what does not exist read as all ones. Decoding of BARs is
 * bar-decoder's, wiring of interrupts intx's; a function's registers are its own.
 *
 *   out 0xcf8: enable | bus | slot | function | register      in/out 0xcfc..0xcff: 1, 2 or 4 bytes of that register
 */
import { ConfigAddress, DEVICES_PER_BUS, HostBridgeId, PciClass, PciHeader, PciPort } from '../../abi/pci.js';
import { IO_APIC_GPA } from '../../abi/acpi.js';
import { VmmError } from '../../base/errors.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import { HOLE_START_GPA } from '../../boot/layout.js';
import type { AcpiContributor } from '../../boot/acpi.js';
import type { AccessSize, AddressBus, AddressRange, BusDevice, InterruptLine } from '../../bus/index.js';
import { pciRootAcpi } from './acpi.js';
import { BarDecoder } from './bar-decoder.js';
import { ConfigSpace } from './config-space.js';
import type { MakeFunction, PciFunction } from './function.js';
import { gsiOfSlot, IntxLines } from './intx.js';
import { busState } from './state.js';

export interface HostBridgeOptions {
  readonly ports: AddressBus;
  readonly mmio: AddressBus;
  /** An input of the IO-APIC, level. */
  readonly irqLine: (gsi: number) => InterruptLine;
}

/** Where memory BARs may be: the hole below 4 GiB up to the interrupt controllers. */
export const PCI_MEMORY_WINDOW: AddressRange = { first: HOLE_START_GPA, length: IO_APIC_GPA - HOLE_START_GPA };

const INTERRUPT_PIN_A = 1;
const DATA_OFFSET = PciPort.CONFIG_DATA - PciPort.CONFIG_ADDRESS;

export class PciHostBridge implements BusDevice, Savable {
  readonly name = 'pci-host-bridge';
  readonly maxSize = 4;
  /** The root's part of the DSDT; to be asked after the last `add`. */
  readonly acpi: AcpiContributor;

  readonly #functions: PciFunction[] = [];
  readonly #decoder: BarDecoder;
  readonly #intx: IntxLines;
  #address = 0;
  #absent = 0;

  /** @throws RangeError when the ports are taken. */
  constructor(options: HostBridgeOptions) {
    this.#decoder = new BarDecoder(options.mmio, PCI_MEMORY_WINDOW);
    this.#intx = new IntxLines(options.irqLine);
    this.acpi = pciRootAcpi({
      window: PCI_MEMORY_WINDOW,
      interruptingSlots: () =>
        this.#functions.flatMap(({ config }, slot) => (config.get(PciHeader.INTERRUPT_PIN, 1) > 0 ? [slot] : [])),
    });
    this.#functions.push(bridgeFunction());
    options.ports.add({ first: PciPort.CONFIG_ADDRESS, length: PciPort.COUNT }, this);
  }

  /** Puts a function into the next free slot. @returns the slot. @throws RangeError when there is none. */
  add(make: MakeFunction): number {
    const slot = this.#functions.length;
    if (slot >= DEVICES_PER_BUS) throw new RangeError(`a PCI bus has ${DEVICES_PER_BUS - 1} slots for devices`);
    const pciFunction = make(this.#intx.line(slot));
    pciFunction.config.set(PciHeader.INTERRUPT_PIN, 1, INTERRUPT_PIN_A);
    pciFunction.config.set(PciHeader.INTERRUPT_LINE, 1, gsiOfSlot(slot));
    this.#functions.push(pciFunction);
    this.#decoder.add(pciFunction);
    return slot;
  }

  read(offset: number, size: AccessSize): number {
    const allOnes = 2 ** (8 * size) - 1;
    if (offset < DATA_OFFSET) {
      // CONFIG_ADDRESS is there for whole words only; what is narrower is somebody else's port.
      return offset === 0 && size === 4 ? this.#address : allOnes;
    }
    const target = this.#target();
    if (!target) return allOnes;
    return target.config.read(this.#register(offset), size);
  }

  write(offset: number, size: AccessSize, value: number | bigint): void {
    if (offset < DATA_OFFSET) {
      if (offset === 0 && size === 4) this.#address = (Number(value) & ConfigAddress.WRITABLE) >>> 0;
      return;
    }
    this.#target()?.config.write(this.#register(offset), size, Number(value));
  }

  reset(): void {
    this.#address = 0;
    for (const pciFunction of this.#functions) {
      pciFunction.config.reset();
      pciFunction.reset();
    }
    this.#decoder.update();
  }

  saveState(): SavedPart {
    return busState.save({
      address: this.#address,
      functions: this.#functions.map((pciFunction) => {
        const state = pciFunction.saveState?.();
        return {
          name: pciFunction.name,
          config: pciFunction.config.saveState(),
          ...(state ? { function: state } : {}),
        };
      }),
    });
  }

  /**
   * On a bus with the same functions in the same slots. After the interrupt controllers: lines that are high are set.
   *
   * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION; the bus is of no use then.
   */
  restoreState(part: SavedPart): void {
    const { address, functions } = busState.load(part);
    const names = (list: readonly { readonly name: string }[]): string => list.map(({ name }) => name).join(', ');
    if (names(functions) !== names(this.#functions)) {
      const message = `the machine has on its PCI bus: ${names(this.#functions)}; the snapshot has: ${names(functions)}`;
      throw new VmmError('ERR_SNAPSHOT', message);
    }
    this.#address = (address & ConfigAddress.WRITABLE) >>> 0;
    for (const [slot, { name, config, function: state }] of functions.entries()) {
      const pciFunction = this.#functions[slot]!;
      pciFunction.config.restoreState(config);
      if ((state === undefined) !== (pciFunction.restoreState === undefined)) {
        throw new VmmError('ERR_SNAPSHOT', `the state of ${name} in the snapshot is of another kind of function`);
      }
      if (state) pciFunction.restoreState!(state);
    }
    this.#decoder.update();
  }

  /** Interrupt lines are not touched from here on. */
  close(): void {
    this.#intx.close();
  }

  inspect(): unknown {
    const functions = this.#functions.map((pciFunction, slot) => {
      const { config, name, bars } = pciFunction;
      const id = [PciHeader.VENDOR_ID, PciHeader.DEVICE_ID].map((at) =>
        config.get(at, 2).toString(16).padStart(4, '0'),
      );
      return {
        slot,
        name,
        id: id.join(':'),
        command: config.command,
        gsi: config.get(PciHeader.INTERRUPT_PIN, 1) > 0 ? gsiOfSlot(slot) : undefined,
        bars: bars.map((bar) => ({
          index: bar.index,
          address: `0x${config.barAddress(bar.index).toString(16)}`,
          sizeBytes: config.barSize(bar.index),
          decoded: this.#decoder.placeOf(bar) !== undefined,
        })),
        device: pciFunction.inspect(),
      };
    });
    return {
      functions,
      absentAccesses: this.#absent,
      assertedBySlot: this.#intx.inspect(),
      decoder: this.#decoder.inspect(),
    };
  }

  /** The function that CONFIG_ADDRESS selects. */
  #target(): PciFunction | undefined {
    const address = this.#address;
    if ((address & ConfigAddress.ENABLE) === 0) return undefined;
    const bus = (address >>> 16) & 0xff;
    const slot = (address >>> 11) & 0x1f;
    const target = bus === 0 && ((address >>> 8) & 7) === 0 ? this.#functions[slot] : undefined;
    if (!target) this.#absent++;
    return target;
  }

  #register(offset: number): number {
    return (this.#address & 0xfc) + offset - DATA_OFFSET;
  }
}

/** 00:00.0: a host bridge that has nothing but its ids. */
function bridgeFunction(): PciFunction {
  const config = new ConfigSpace({
    vendorId: HostBridgeId.VENDOR,
    deviceId: HostBridgeId.DEVICE,
    revision: 0,
    classCode: PciClass.HOST_BRIDGE,
    subsystemVendorId: 0,
    subsystemId: 0,
  });
  return { name: 'host-bridge', config, bars: [], reset: () => undefined, inspect: () => ({}) };
}

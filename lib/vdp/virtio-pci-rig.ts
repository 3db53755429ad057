/**
 * A virtio function on a bus without KVM, and a driver that goes through its steps as Linux does (virtio 1.2, 3.1.1): for
 * units and fuzzers of the transport. The device behind it is a fake that notes what it is told.
 */
import { PciHeader } from '../abi/pci.js';
import { CommonCfg, VirtioPciCap, VirtioPciCapType } from '../abi/virtio-pci.js';
import { ManualClock } from '../base/clock.js';
import type { Logger } from '../base/logger.js';
import type { SavedPart } from '../base/saved-state.js';
import { AddressBus, type AccessResult } from '../bus/index.js';
import { FakeGuestMemory } from '../memory/fake.js';
import { PciHostBridge } from './pci/host-bridge.js';
import { makeSplitQueue } from './queue-factory.js';
import type { VirtioActivation, VirtioDevice } from './virtio-device.js';
import { VirtioPciFunction } from './virtio-pci.js';

export const RIG_MEMORY_BYTES = 1 << 20;

/** Two queues of 8 and 16, 20 bytes of configuration, features 0 and 5. */
export class FakeVirtioDevice implements VirtioDevice {
  readonly name = 'fake0';
  readonly deviceId = 4;
  readonly pciClass = 0x00ff00;
  readonly features = 0x21n;
  readonly queueSizes = [8, 16];
  readonly bytes = Uint8Array.from({ length: 20 }, (_, index) => index + 1);
  readonly config = {
    sizeBytes: 20,
    read: (offset: number, size: number): number | bigint => {
      let value = 0n;
      for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[offset + i] ?? 0);
      return size === 8 ? value : Number(value);
    },
    write: (offset: number, size: number, value: number | bigint): void => {
      for (let i = 0; i < size && offset + i < 20; i++) this.bytes[offset + i] = Number(BigInt(value) >> BigInt(8 * i));
    },
  };
  readonly log: string[] = [];
  activation: VirtioActivation | undefined;
  /** When set, a reset waits until it is called. */
  holdReset = false;
  finishReset: (() => void) | undefined;

  activate(activation: VirtioActivation): void {
    if (this.activation) throw new Error('activated twice');
    this.activation = activation;
    this.log.push('activate');
  }

  notify(queueIndex: number): void {
    if (this.activation?.queues[queueIndex] === undefined) throw new Error('notified without a queue');
    this.log.push(`notify ${queueIndex}`);
  }

  async reset(): Promise<void> {
    this.log.push('reset');
    this.activation = undefined;
    if (this.holdReset) await new Promise<void>((resolve) => (this.finishReset = resolve));
  }

  saveState(): SavedPart {
    this.log.push('save');
    return { type: 'fake', version: 1, data: this.bytes.slice() };
  }

  restoreState({ data }: SavedPart): void {
    this.bytes.set(data as Uint8Array);
    this.log.push('restore');
  }

  close(): void {
    if (this.activation) throw new Error('closed while active');
    this.log.push('close');
  }

  inspect(): unknown {
    return {};
  }
}

export class VirtioPciRig<D extends VirtioDevice = FakeVirtioDevice> {
  readonly device: D;
  readonly memory: FakeGuestMemory;
  readonly bridge: PciHostBridge;
  readonly pci: VirtioPciFunction;
  /** What interrupts came: 'msix V', 'intx high', 'intx low'. */
  readonly interrupts: string[] = [];
  readonly warnings: string[] = [];
  readonly failures: unknown[] = [];
  /** Doorbells where they stand now, and how to ring them. */
  readonly doorbells = new Map<number, () => void>();
  readonly #view = new DataView(new ArrayBuffer(8));
  /** By the size of an access. */
  readonly #data = Array.from({ length: 9 }, (_, size) => new Uint8Array(this.#view.buffer, 0, size));
  readonly #ports: AddressBus;
  readonly #mmio: AddressBus;
  #structures = new Map<number, { at: number; gpa: number; length: number }>();

  /** @param device default: the fake. */
  constructor(memory = new FakeGuestMemory(RIG_MEMORY_BYTES), device?: D) {
    this.memory = memory;
    this.device = device ?? (new FakeVirtioDevice() as VirtioDevice as D);
    const clock = new ManualClock();
    const logger: Logger = {
      log: (level, message) => {
        if (level === 'warn') this.warnings.push(message);
      },
    };
    this.#ports = new AddressBus({ space: 'port', clock, logger });
    this.#mmio = new AddressBus({ space: 'mmio', clock, logger });
    this.bridge = new PciHostBridge({
      ports: this.#ports,
      mmio: this.#mmio,
      irqLine: () => ({ set: (high) => void this.interrupts.push(`intx ${high ? 'high' : 'low'}`) }),
    });
    let vectors = 0;
    let made: VirtioPciFunction | undefined;
    this.bridge.add((intx) => {
      made = new VirtioPciFunction({
        device: this.device,
        memory: this.memory,
        makeQueue: makeSplitQueue,
        makeVector: () => {
          const vector = vectors++;
          return { configure: () => undefined, signal: () => void this.interrupts.push(`msix ${vector}`), close() {} };
        },
        makeDoorbell: (ring) => {
          let at: number | undefined;
          const place = (gpa: number | undefined): void => {
            if (at !== undefined) this.doorbells.delete(at);
            at = gpa;
            if (gpa !== undefined) this.doorbells.set(gpa, ring);
          };
          return { place, close: () => place(undefined) };
        },
        intx,
        clock,
        logger,
        onFailure: (cause) => void this.failures.push(cause),
      });
      return made;
    });
    this.pci = made!;
  }

  // ---- accesses; a device's fault is an exception here ----

  configRead(register: number, size: 1 | 2 | 4): number {
    this.#access(this.#ports, 0xcf8, 4, 0x8000_0800 + (register & 0xfc));
    return Number(this.#access(this.#ports, 0xcfc + (register & 3), size));
  }

  configWrite(register: number, size: 1 | 2 | 4, value: number): void {
    this.#access(this.#ports, 0xcf8, 4, 0x8000_0800 + (register & 0xfc));
    this.#access(this.#ports, 0xcfc + (register & 3), size, value);
  }

  read(gpa: number, size: number): bigint {
    return this.#access(this.#mmio, gpa, size);
  }

  write(gpa: number, size: number, value: number | bigint): void {
    this.#access(this.#mmio, gpa, size, value);
  }

  // ---- what a driver does ----

  /** Walks the capabilities and finds the structures, as virtio_pci_modern's probe does. */
  probe(): Map<number, { at: number; gpa: number; length: number }> {
    this.#structures = new Map();
    for (let at = this.configRead(PciHeader.CAPABILITY_LIST, 1); at !== 0; at = this.configRead(at + 1, 1)) {
      if (this.configRead(at, 1) !== 9) continue;
      const bar = this.configRead(PciHeader.BASE_ADDRESS_0 + 4 * this.configRead(at + VirtioPciCap.BAR, 1), 4);
      const type = this.configRead(at + VirtioPciCap.CFG_TYPE, 1);
      const gpa = bar + this.configRead(at + VirtioPciCap.OFFSET, 4);
      this.#structures.set(type, { at, gpa, length: this.configRead(at + VirtioPciCap.LENGTH, 4) });
    }
    return this.#structures;
  }

  place(type: number): number {
    return this.#structures.get(type)!.gpa;
  }

  common(offset: number): number {
    return this.place(VirtioPciCapType.COMMON) + offset;
  }

  get status(): number {
    return Number(this.read(this.common(CommonCfg.DEVICE_STATUS), 1));
  }

  set status(value: number) {
    this.write(this.common(CommonCfg.DEVICE_STATUS), 1, value);
  }

  offeredFeatures(): bigint {
    let features = 0n;
    for (const select of [0, 1]) {
      this.write(this.common(CommonCfg.DEVICE_FEATURE_SELECT), 4, select);
      features |= this.read(this.common(CommonCfg.DEVICE_FEATURE), 4) << BigInt(32 * select);
    }
    return features;
  }

  acceptFeatures(features: bigint): void {
    for (const select of [0, 1]) {
      this.write(this.common(CommonCfg.DRIVER_FEATURE_SELECT), 4, select);
      this.write(this.common(CommonCfg.DRIVER_FEATURE), 4, (features >> BigInt(32 * select)) & 0xffff_ffffn);
    }
  }

  /** @param gpa where the three parts stand, a page each. */
  setUpQueue(index: number, gpa: number, vector = 0xffff): void {
    this.write(this.common(CommonCfg.QUEUE_SELECT), 2, index);
    this.write(this.common(CommonCfg.QUEUE_MSIX_VECTOR), 2, vector);
    for (const [part, offset] of [CommonCfg.QUEUE_DESC, CommonCfg.QUEUE_DRIVER, CommonCfg.QUEUE_DEVICE].entries()) {
      this.write(this.common(offset), 4, gpa + 0x1000 * part);
      this.write(this.common(offset + 4), 4, 0);
    }
    this.write(this.common(CommonCfg.QUEUE_ENABLE), 2, 1);
  }

  /** Everything from the reset up to DRIVER_OK. */
  initialise(options: { features?: bigint; msix?: boolean } = {}): void {
    this.probe();
    this.configWrite(PciHeader.COMMAND, 2, 6);
    this.status = 0;
    for (const status of [1, 3]) this.status = status;
    this.acceptFeatures(options.features ?? this.offeredFeatures());
    this.status = 0xb;
    if (options.msix === true) this.enableMsix();
    for (const index of [0, 1])
      this.setUpQueue(index, 0x1_0000 * (index + 1), options.msix === true ? index + 1 : 0xffff);
    if (options.msix === true) this.write(this.common(CommonCfg.CONFIG_MSIX_VECTOR), 2, 0);
    this.status = 0xf;
  }

  get msixTable(): number {
    return this.configRead(PciHeader.BASE_ADDRESS_0 + 4, 4);
  }

  enableMsix(): void {
    let at = this.configRead(PciHeader.CAPABILITY_LIST, 1);
    while (this.configRead(at, 1) !== 0x11) at = this.configRead(at + 1, 1);
    this.configWrite(at + 2, 2, 0x8000);
    for (let vector = 0; vector < 3; vector++) {
      this.write(this.msixTable + 16 * vector, 4, 0xfee0_0000);
      this.write(this.msixTable + 16 * vector + 8, 4, 0x20 + vector);
      this.write(this.msixTable + 16 * vector + 12, 4, 0);
    }
  }

  #access(bus: AddressBus, address: number, size: number, value?: number | bigint): bigint {
    const data = this.#data[size]!;
    const view = this.#view;
    if (value === undefined) data.fill(0);
    else view.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
    const result: AccessResult = bus.access(address, size, 1, value !== undefined, data);
    if (result instanceof Promise) throw new Error('a register answered later');
    if (result) throw new Error(`${result.device} failed`, { cause: result.cause });
    if (value !== undefined) return 0n;
    return size === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true) % 2 ** (8 * size));
  }
}

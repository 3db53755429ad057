/**
 * The common configuration structure of virtio over PCI (virtio 1.2, 4.1.4.3): registers in front of VirtioLifecycle. A
 * read may have any size and place; a write must be one whole field, or a half of an address, as 4.1.3.1 demands of
 * drivers, and is dropped and counted otherwise.
 */
import { CommonCfg } from '../abi/virtio-pci.js';
import type { Misbehaviour } from './misbehaviour.js';
import type { QueueSetup } from './lifecycle-contract.js';
import type { VirtioLifecycle } from './virtio-lifecycle.js';

interface Register {
  readonly offset: number;
  readonly size: 1 | 2 | 4;
  read(): number;
  /** Absent: the driver may not write it. */
  write?(value: number): void;
}

type AddressName = 'descriptors' | 'driver' | 'device';

export class VirtioCommonConfig {
  readonly #life: VirtioLifecycle;
  readonly #misbehaviour: Misbehaviour;
  /** A vector as it will be kept. */
  readonly #acceptVector: (vector: number) => number;
  /** By the offset of each byte. */
  readonly #registers: Register[] = [];
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #queueSelect = 0;

  constructor(life: VirtioLifecycle, misbehaviour: Misbehaviour, acceptVector: (vector: number) => number) {
    this.#life = life;
    this.#misbehaviour = misbehaviour;
    this.#acceptVector = acceptVector;
    for (const register of this.#layout()) {
      for (let i = 0; i < register.size; i++) this.#registers[register.offset + i] = register;
    }
  }

  /** Bytes behind the structure read as zero. */
  read(offset: number, size: number): number | bigint {
    const register = this.#registers[offset];
    if (register?.offset === offset && register.size === size) return register.read();
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#readByte(offset + i));
    return size === 8 ? value : Number(value);
  }

  write(offset: number, size: number, value: number | bigint): void {
    if (size === 8 && offset % 8 === 0 && offset >= CommonCfg.QUEUE_DESC && offset < CommonCfg.SIZE) {
      this.write(offset, 4, Number(BigInt(value) & 0xffff_ffffn));
      this.write(offset + 4, 4, Number(BigInt(value) >> 32n));
      return;
    }
    const register = this.#registers[offset];
    if (register?.offset !== offset || register.size !== size) {
      this.#misbehaviour.count('a write that is no field', `${size} bytes at ${offset}`);
    } else if (!register.write) {
      this.#misbehaviour.count('a write to a read-only field', `at ${offset}`);
    } else if (this.#life.isBusy) {
      this.#misbehaviour.count('a write during a reset', `at ${offset}`);
    } else {
      register.write(Number(value));
    }
  }

  /** The device was reset: selectors too. */
  reset(): void {
    this.#deviceFeatureSelect = 0;
    this.#driverFeatureSelect = 0;
    this.#queueSelect = 0;
  }

  /** For a snapshot. */
  get selects(): { deviceFeature: number; driverFeature: number; queue: number } {
    return {
      deviceFeature: this.#deviceFeatureSelect,
      driverFeature: this.#driverFeatureSelect,
      queue: this.#queueSelect,
    };
  }

  restoreSelects(selects: { deviceFeature: number; driverFeature: number; queue: number }): void {
    this.#deviceFeatureSelect = selects.deviceFeature;
    this.#driverFeatureSelect = selects.driverFeature;
    this.#queueSelect = selects.queue;
  }

  #readByte(offset: number): number {
    const register = this.#registers[offset];
    return register ? (register.read() >>> (8 * (offset - register.offset))) & 0xff : 0;
  }

  get #queue(): QueueSetup | undefined {
    return this.#life.queue(this.#queueSelect);
  }

  #layout(): Register[] {
    const life = this.#life;
    return [
      {
        offset: CommonCfg.DEVICE_FEATURE_SELECT,
        size: 4,
        read: () => this.#deviceFeatureSelect,
        write: (value) => (this.#deviceFeatureSelect = value),
      },
      { offset: CommonCfg.DEVICE_FEATURE, size: 4, read: () => word(life.offered, this.#deviceFeatureSelect) },
      {
        offset: CommonCfg.DRIVER_FEATURE_SELECT,
        size: 4,
        read: () => this.#driverFeatureSelect,
        write: (value) => (this.#driverFeatureSelect = value),
      },
      {
        offset: CommonCfg.DRIVER_FEATURE,
        size: 4,
        read: () => word(life.accepted, this.#driverFeatureSelect),
        write: (value) => this.#acceptFeatures(value),
      },
      {
        offset: CommonCfg.CONFIG_MSIX_VECTOR,
        size: 2,
        read: () => life.configVector,
        write: (value) => (life.configVector = this.#acceptVector(value)),
      },
      { offset: CommonCfg.NUM_QUEUES, size: 2, read: () => life.queueCount },
      {
        offset: CommonCfg.DEVICE_STATUS,
        size: 1,
        read: () => life.status,
        write: (value) => life.writeStatus(value),
      },
      { offset: CommonCfg.CONFIG_GENERATION, size: 1, read: () => life.configGeneration() },
      {
        offset: CommonCfg.QUEUE_SELECT,
        size: 2,
        read: () => this.#queueSelect,
        write: (value) => (this.#queueSelect = value),
      },
      {
        offset: CommonCfg.QUEUE_SIZE,
        size: 2,
        read: () => this.#queue?.size ?? 0,
        write: (value) => this.#setSize(value),
      },
      {
        offset: CommonCfg.QUEUE_MSIX_VECTOR,
        size: 2,
        read: () => this.#queue?.vector ?? this.#acceptVector(0xffff),
        // May be changed at any time: Linux takes vectors back from queues that are enabled.
        write: (value) => {
          if (this.#queue) this.#queue.vector = this.#acceptVector(value);
        },
      },
      {
        offset: CommonCfg.QUEUE_ENABLE,
        size: 2,
        read: () => (this.#queue?.enabled === true ? 1 : 0),
        write: (value) => life.enableQueue(this.#queueSelect, value),
      },
      // Each queue has its own address.
      { offset: CommonCfg.QUEUE_NOTIFY_OFF, size: 2, read: () => (this.#queue ? this.#queueSelect : 0) },
      ...this.#addressRegisters(CommonCfg.QUEUE_DESC, 'descriptors'),
      ...this.#addressRegisters(CommonCfg.QUEUE_DRIVER, 'driver'),
      ...this.#addressRegisters(CommonCfg.QUEUE_DEVICE, 'device'),
    ];
  }

  #addressRegisters(offset: number, name: AddressName): Register[] {
    return [0, 1].map((half) => ({
      offset: offset + 4 * half,
      size: 4,
      read: () => word(this.#queue?.[name] ?? 0n, half),
      write: (value) =>
        this.#life.setUpQueue(this.#queueSelect, (setup) => (setup[name] = withWord(setup[name], half, value))),
    }));
  }

  #acceptFeatures(value: number): void {
    if (this.#driverFeatureSelect <= 1) {
      this.#life.accepted = withWord(this.#life.accepted, this.#driverFeatureSelect, value);
    } else if (value !== 0) {
      this.#misbehaviour.count('features beyond bit 63', `select ${this.#driverFeatureSelect}`);
    }
  }

  #setSize(size: number): void {
    this.#life.setUpQueue(this.#queueSelect, (setup) => {
      const max = this.#life.maxQueueSize(this.#queueSelect);
      if (size > 0 && size <= max && (size & (size - 1)) === 0) setup.size = size;
      else this.#misbehaviour.count('a wrong queue size', `${size} of ${max}`);
    });
  }
}

/** 32 bits of 64; none beyond. */
function word(value: bigint, index: number): number {
  return index <= 1 ? Number((value >> BigInt(32 * index)) & 0xffff_ffffn) : 0;
}

function withWord(value: bigint, index: number, bits: number): bigint {
  const shift = BigInt(32 * index);
  return (value & ~(0xffff_ffffn << shift)) | (BigInt(bits) << shift);
}

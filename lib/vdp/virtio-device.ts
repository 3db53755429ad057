/**
 * The border between a virtio transport (virtio-pci.ts) and the devices (block.ts, console.ts, entropy.ts). A device
 * knows no register, interrupt controller or hypervisor: it offers features and configuration space, gets its queues
 * when the driver is ready, and is told of notifications. Virtio 1.2, chapters 2 and 3.
 *
 *   reset --driver sets FEATURES_OK (transport checks)--> negotiated --DRIVER_OK--> activate() --...--> reset()
 *   restoreState() --> activate() with queues that go on where they were
 */
import type { SavedPart } from '../base/saved-state.js';
import type { Virtqueue } from './virtqueue.js';

/** What an active device has from its transport. */
export interface VirtioActivation {
  /** The features that driver and device agreed on. */
  readonly features: bigint;
  /** In the device's order; undefined for a queue that the driver did not enable. */
  readonly queues: readonly (Virtqueue | undefined)[];
  /** Tells the driver about used buffers of a queue, unless it does not want to hear. Call it once for a batch. */
  interrupt(queueIndex: number): void;
  /** The configuration space changed: generation and a configuration interrupt. */
  configChanged(): void;
  /** The driver broke the rules: DEVICE_NEEDS_RESET, counted and logged at a bounded rate. The device stops. */
  needsReset(reason: string): void;
}

export interface VirtioDevice {
  /** Unique in a machine: a disk's id. */
  readonly name: string;
  /** Virtio device id (virtio 1.2, chapter 5): 2 block, 3 console, 4 entropy. */
  readonly deviceId: number;
  /** PCI class code, subclass and interface: 0x010000 for mass storage. */
  readonly pciClass: number;
  /** Device features (bits 0 to 23 and 50 up); the transport adds VERSION_1, RING_INDIRECT_DESC, RING_EVENT_IDX. */
  readonly features: bigint;
  /** The greatest size of each queue: a power of two. */
  readonly queueSizes: readonly number[];
  /** Device configuration space. Offsets outside read as zero; writes outside are dropped. */
  readonly config: VirtioConfigSpace;
  activate(activation: VirtioActivation): void;
  /** Buffers are available, as far as the driver says. Only between activate() and reset(). */
  notify(queueIndex: number): void;
  /**
   * Forgets the driver; resolves when no request of it can touch guest memory any more. Requests in flight are
   * completed or dropped. The device can then be activated anew.
   */
  reset(): Promise<void>;
  /**
   * What is the device's own, beside features, queues and what its provider keeps. Its queues are held and its provider is
   * prepared; what it has completed is published by this. Missing: a machine with it can't be saved.
   */
  saveState?(): SavedPart;
  /**
   * In a device that was just made; the `activate` that may follow goes on where the saved one was. Its queues are held
   * until the machine runs, and what was in flight comes out of them again.
   *
   * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION.
   */
  restoreState?(part: SavedPart): void;
  /** Gives up for good, after a reset: the machine ends. */
  close(): void;
  inspect(): unknown;
}

export interface VirtioConfigSpace {
  readonly sizeBytes: number;
  /** size is 1, 2, 4 or 8; the answer an unsigned number. */
  read(offset: number, size: number): number | bigint;
  write(offset: number, size: number, value: number | bigint): void;
}

/**
 * The virtio block device (virtio 1.2, 5.2): the guest's side of a BlockService. Parser (block-request.ts) and executor
 * (block-session.ts) stand apart; this file is the device's life: activated, notified, reset.
 * One queue: every queue of a disk would be served by the same thread.
 */
import { VirtioBlkFeature, VirtioDeviceId } from '../abi/virtio.js';
import type { SavedPart } from '../base/saved-state.js';
import type { BlockService } from '../vsp/block/contract.js';
import { BlockConfig, blockFeatures } from './block-config.js';
import { BlockSession, type BlockCounts } from './block-session.js';
import { blockState } from './device-states.js';
import type { VirtioActivation, VirtioConfigSpace, VirtioDevice } from './virtio-device.js';

const DEFAULT_QUEUE_SIZE = 256;

export interface BlockDeviceOptions {
  /** A power of two; 256 when not given. Requests have up to two pieces less. */
  readonly queueSize?: number;
}

export class BlockDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceId = VirtioDeviceId.BLOCK;
  readonly pciClass = 0x010000;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly #service: BlockService;
  readonly #config: BlockConfig;
  readonly #endGeometry: () => void;
  readonly #counts: BlockCounts = {
    requests: { read: 0, write: 0, flush: 0, discard: 0, 'write-zeroes': 0, identify: 0, refused: 0 },
    failed: 0,
    interrupts: 0,
  };
  #activation: VirtioActivation | undefined;
  #session: BlockSession | undefined;
  #drained = Promise.resolve();
  #resets = 0;
  /** From a snapshot: the cache mode that the driver chose. */
  #restoredWriteback: boolean | undefined;

  constructor(service: BlockService, options: BlockDeviceOptions = {}) {
    const queueSize = options.queueSize ?? DEFAULT_QUEUE_SIZE;
    this.name = service.id;
    this.features = blockFeatures(service);
    this.queueSizes = [queueSize];
    this.#service = service;
    this.#config = new BlockConfig(service.geometry, queueSize);
    this.#endGeometry = service.onGeometry((geometry) => {
      this.#config.setGeometry(geometry);
      this.#activation?.configChanged();
    });
  }

  get config(): VirtioConfigSpace {
    return this.#config;
  }

  activate(activation: VirtioActivation): void {
    this.#activation = activation;
    // 5.2.5.2: without FLUSH the cache starts as write-through.
    const { CONFIG_WCE, FLUSH } = VirtioBlkFeature;
    if ((activation.features & CONFIG_WCE) !== 0n && (activation.features & FLUSH) === 0n) {
      this.#config.writeback = false;
    }
    if (this.#restoredWriteback !== undefined) this.#config.writeback = this.#restoredWriteback;
    this.#restoredWriteback = undefined;
    const queue = activation.queues[0];
    if (queue === undefined) return;
    const session = new BlockSession(this.#service, this.#config, activation, queue, this.#counts);
    this.#session = session;
    // What was made available before DRIVER_OK, or before a snapshot; not inside the transport's call.
    queueMicrotask(() => session.run());
  }

  notify(queueIndex: number): void {
    if (queueIndex === 0) this.#session?.run();
  }

  reset(): Promise<void> {
    const stopped = this.#session?.stop();
    if (stopped !== undefined) this.#service.abandon?.();
    this.#session = undefined;
    this.#activation = undefined;
    this.#config.writeback = true;
    this.#restoredWriteback = undefined;
    this.#resets++;
    // A second reset waits for what the first one waits for.
    if (stopped !== undefined) this.#drained = this.#drained.then(() => stopped);
    return this.#drained;
  }

  /** Requests in flight are held by the provider's gate: they come out of the queue again. */
  saveState(): SavedPart {
    this.#session?.publish();
    return blockState.save(this.#activation ? { writeback: this.#config.writeback } : {});
  }

  restoreState(part: SavedPart): void {
    this.#restoredWriteback = blockState.load(part).writeback;
  }

  close(): void {
    this.#endGeometry();
    void this.reset();
  }

  inspect(): unknown {
    return {
      active: this.#activation !== undefined,
      inService: this.#session?.inService ?? 0,
      resets: this.#resets,
      ...this.#counts,
      requests: { ...this.#counts.requests },
    };
  }
}

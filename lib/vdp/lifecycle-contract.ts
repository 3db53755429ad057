/**
 * What virtio-lifecycle.ts takes from and tells its transport: queues as a driver sets them up, how they are made, and what
 * the transport hears of.
 */
import type { DeviceMemory } from '../memory/device-memory.js';
import type { Misbehaviour } from './misbehaviour.js';
import type { VirtioDevice } from './virtio-device.js';
import type { Virtqueue, VirtqueueState } from './virtqueue.js';

/** What a queue is made of. Addresses are below 2^52 and otherwise unchecked, `size` is a power of two in bounds. */
export interface QueueOptions {
  readonly index: number;
  readonly memory: DeviceMemory;
  readonly size: number;
  /** The device's own limit, where the driver chose a smaller ring. */
  readonly maxSize: number;
  readonly addresses: { readonly descriptors: number; readonly driver: number; readonly device: number };
  readonly features: bigint;
  /** Go on from here: from a snapshot. */
  readonly state?: VirtqueueState | undefined;
}

/** Makes a queue, or says why there can't be one. */
export type MakeQueue = (options: QueueOptions) => Virtqueue | string;

/** A queue as the driver sets it up. */
export interface QueueSetup {
  size: number;
  vector: number;
  enabled: boolean;
  descriptors: bigint;
  driver: bigint;
  device: bigint;
}

/** What the transport hears of. */
export interface LifecycleListener {
  /** Used buffers in a queue: interrupt by its vector. */
  onQueueInterrupt(setup: QueueSetup): void;
  /** The configuration changed, or the device needs a reset. */
  onConfigInterrupt(): void;
  /** Queues with these indices are in use from now on; none: the device is no longer. */
  onQueues(indices: readonly number[]): void;
  /** The device is as after power-on. */
  onReset(): void;
  /** The device failed outside of a register access: a bug of ours. */
  onFailure(cause: unknown): void;
}

export interface LifecycleOptions {
  readonly device: VirtioDevice;
  readonly memory: DeviceMemory;
  readonly makeQueue: MakeQueue;
  readonly misbehaviour: Misbehaviour;
  readonly listener: LifecycleListener;
}

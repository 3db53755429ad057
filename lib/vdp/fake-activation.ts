/** A transport without registers, for units, benches and fuzzers of devices: it notes what a device tells it. */
import type { VirtioActivation } from './virtio-device.js';
import type { Virtqueue } from './virtqueue.js';

export class FakeActivation implements VirtioActivation {
  readonly features: bigint;
  readonly queues: readonly (Virtqueue | undefined)[];
  /** Queue indices, in order. */
  readonly interrupts: number[] = [];
  configChanges = 0;
  readonly resetReasons: string[] = [];

  constructor(features: bigint, queues: readonly (Virtqueue | undefined)[]) {
    this.features = features;
    this.queues = queues;
  }

  interrupt(queueIndex: number): void {
    this.interrupts.push(queueIndex);
  }

  configChanged(): void {
    this.configChanges++;
  }

  needsReset(reason: string): void {
    this.resetReasons.push(reason);
  }
}

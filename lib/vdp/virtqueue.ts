/**
 * A virtqueue, the device's side: takes descriptor chains that the driver made available and gives them back used.
 * Virtio 1.2, 2.6 and 2.7. Devices and transports take this contract; split-queue.ts does it. What a driver does wrong
 * is never an exception: the queue is broken from then on, writes nothing any more, and says why.
 */
import type { GuestVector } from '../memory/io-vector.js';

/** One request of the driver: its descriptors copied once, checked, and split into what is read and what is written. */
export interface DescriptorChain {
  /** Index of the first descriptor, which names the chain in the used ring. */
  readonly head: number;
  /** Device-readable pieces, in order. */
  readonly readable: GuestVector;
  /** Device-writable pieces, in order; all stand behind the readable ones. */
  readonly writable: GuestVector;
}

/** A queue in a snapshot: what its rings in guest memory do not say. */
export interface VirtqueueState {
  /** Free-running index of the next entry of the available ring. */
  readonly availableIndex: number;
  /** Free-running index of the next entry of the used ring, as published. */
  readonly usedIndex: number;
  /** Heads of the chains that were popped and not pushed: a queue made from this state pops them first. */
  readonly inFlight: readonly number[];
}

export interface Virtqueue {
  readonly index: number;
  readonly size: number;
  /**
   * The transport's: while it is set no chain is taken and no ring is looked at (a PCI function that is no bus master, a
   * snapshot). Chains that were popped before can be given back, but a device gives none back of its own accord: what it was
   * asked for ends, what it holds it keeps.
   */
  held: boolean;
  /**
   * The next available chain; undefined when there is none, or when the queue is broken (then `broken` says why, and
   * the device calls needsReset).
   */
  pop(): DescriptorChain | undefined;
  /**
   * Gives a chain back, with the bytes written to its writable part. Seen by the driver at the next `expose` or `publish`.
   *
   * @throws RangeError when no chain of that head was popped: a bug of the device.
   */
  push(head: number, writtenBytes: number): void;
  /**
   * The driver sees what was pushed: the used index, with release order. Whether it wants an interrupt is asked by the
   * `publish` that has to follow in the same turn: a driver that has looked in the meantime wants none (with an event index).
   */
  expose(): void;
  /** `expose`, and true when the driver wants an interrupt for what was exposed since the last `publish`. */
  publish(): boolean;
  /** Asks the driver for notifications again; true when chains came in the meantime (then go on popping). */
  enableNotifications(): boolean;
  disableNotifications(): void;
  /** Why the queue can't be used any more: what the driver did wrong. */
  readonly broken: string | undefined;
  /** Chains popped and not pushed. */
  readonly inFlight: number;
  /**
   * For a snapshot, with the queue held. Chains in flight are popped again by the queue that is made of it.
   *
   * @throws Error when chains were pushed and not published: a bug of the device.
   */
  state(): VirtqueueState;
}

/**
 * One port of the virtio console between an activation and the reset behind it (virtio 1.2, 5.3.6), for console.ts:
 * bytes both ways between its two queues and a ConsolePortService. Nothing is buffered here but the piece on its way:
 * what the service does not take stays in the transmit queue, what the guest has no buffers for stays with the service.
 */
import type { ConsoleGuestEnd, ConsolePortService, ConsoleSize } from '../vsp/console/contract.js';
import type { VirtioActivation } from './virtio-device.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

/** What is handed to the service at once. */
const PIECE_BYTES = 64 * 1024;
/** What is taken from the guest in one call, before others of the event loop have their turn. */
const BYTES_PER_TURN = 1024 * 1024;

/** What a port does not decide for itself. */
export interface ConsolePortEvents {
  hostOpen(open: boolean): void;
  resize(size: ConsoleSize): void;
  /** The driver broke the rules. */
  fail(reason: string): void;
}

export class ConsolePort implements ConsoleGuestEnd {
  readonly #service: ConsolePortService;
  readonly #activation: VirtioActivation;
  readonly #receive: Virtqueue | undefined;
  readonly #transmit: Virtqueue | undefined;
  readonly #events: ConsolePortEvents;
  #isStopped = false;
  #isGuestOpen = false;
  /** The service was given less than it offered, and is to be told when there is room. */
  #hasRefused = false;
  /** The service does not take more for now, or others have their turn. */
  #isWaiting = false;
  /** A chain of which the first `#sent` bytes are with the service. */
  #chain: DescriptorChain | undefined;
  #sent = 0;
  /** From a snapshot: of the next chain, what was sent before. */
  #sentBefore = 0;
  #piece: Uint8Array | undefined;

  constructor(
    service: ConsolePortService,
    activation: VirtioActivation,
    receive: Virtqueue | undefined,
    transmit: Virtqueue | undefined,
    events: ConsolePortEvents,
  ) {
    this.#service = service;
    this.#activation = activation;
    this.#receive = receive;
    this.#transmit = transmit;
    this.#events = events;
  }

  start(): void {
    if (this.#isStopped) return;
    this.#service.attach(this);
    if (this.#isGuestOpen) this.#service.guestOpen(true);
  }

  state(): { guestOpen: boolean; sentBytes: number } {
    return { guestOpen: this.#isGuestOpen, sentBytes: this.#chain === undefined ? 0 : this.#sent };
  }

  /** Before start(): the chain that was sent in part is the first that comes out of the transmit queue. */
  restore({ guestOpen, sentBytes }: { guestOpen: boolean; sentBytes: number }): void {
    this.#isGuestOpen = guestOpen;
    this.#sentBefore = sentBytes;
  }

  /** Touches neither guest memory nor the service behind this. */
  stop(): void {
    if (this.#isStopped) return;
    this.setGuestOpen(false);
    this.#isStopped = true;
    this.#service.attach(undefined);
  }

  setGuestOpen(open: boolean): void {
    if (this.#isStopped || open === this.#isGuestOpen) return;
    this.#isGuestOpen = open;
    this.#service.guestOpen(open);
    this.#tellReady();
  }

  offer(bytes: Uint8Array): number {
    // What is received while no process has the port open is lost in the guest: it waits.
    const taken = this.#isGuestOpen && !this.#isStopped ? this.#put(bytes) : 0;
    if (taken < bytes.length) this.#hasRefused = true;
    return taken;
  }

  hostOpen(open: boolean): void {
    if (!this.#isStopped) this.#events.hostOpen(open);
  }

  resize(size: ConsoleSize): void {
    if (!this.#isStopped) this.#events.resize(size);
  }

  /** The driver gave buffers. */
  notifyReceive(): void {
    this.#tellReady();
  }

  /** The driver sent. */
  notifyTransmit(): void {
    const queue = this.#transmit;
    if (this.#isStopped || this.#isWaiting || queue === undefined || queue.held) return;
    // From before a reset: a guest that resets again and again would fill the host's memory a piece at a time.
    if (this.#service.busy !== undefined) return this.#wait(this.#service.busy);
    queue.disableNotifications();
    let wait: Promise<void> | undefined;
    for (let chains = queue.size, bytes = BYTES_PER_TURN; wait === undefined;) {
      if (this.#chain === undefined) {
        const chain = queue.pop();
        if (chain === undefined) {
          if (queue.enableNotifications()) continue;
          break;
        }
        // 5.3.6.1: nothing writable in a transmit queue.
        if (chain.writable.lengthBytes > 0) return this.#events.fail('a writable descriptor in a transmit queue');
        this.#chain = chain;
        this.#sent = Math.min(this.#sentBefore, chain.readable.lengthBytes);
        this.#sentBefore = 0;
      }
      const left = this.#chain.readable.lengthBytes - this.#sent;
      if (left > 0) {
        wait = this.#output(this.#chain, Math.min(left, PIECE_BYTES));
        // Whoever got the bytes may have reset the device.
        if (this.#isStopped) return;
        bytes -= PIECE_BYTES;
      }
      if (left <= PIECE_BYTES) {
        queue.push(this.#chain.head, 0);
        this.#chain = undefined;
        chains--;
      }
      if (chains <= 0 || bytes <= 0) wait ??= new Promise((resolve) => setImmediate(resolve));
    }
    if (queue.publish()) this.#activation.interrupt(queue.index);
    if (queue.broken !== undefined) return this.#events.fail(queue.broken);
    if (wait !== undefined) this.#wait(wait);
  }

  #wait(until: Promise<void>): void {
    this.#isWaiting = true;
    const goOn = () => {
      this.#isWaiting = false;
      this.notifyTransmit();
    };
    until.then(goOn, goOn);
  }

  #output(chain: DescriptorChain, lengthBytes: number): Promise<void> | undefined {
    this.#piece ??= new Uint8Array(PIECE_BYTES);
    const bytes = this.#piece.subarray(0, lengthBytes);
    chain.readable.slice(this.#sent, lengthBytes).copyTo(bytes);
    this.#sent += lengthBytes;
    return this.#service.output(bytes);
  }

  /** Into the receive buffers; how many bytes went in. */
  #put(bytes: Uint8Array): number {
    const queue = this.#receive;
    if (queue === undefined) return 0;
    let taken = 0;
    queue.disableNotifications();
    for (let chains = queue.size; taken < bytes.length;) {
      if (chains-- === 0) {
        // Buffers that keep coming, and are too small: others have their turn.
        setImmediate(() => this.#tellReady());
        break;
      }
      const chain = queue.pop();
      if (chain === undefined) {
        if (queue.enableNotifications()) continue;
        break;
      }
      // 5.3.6.1: nothing readable in a receive queue.
      if (chain.readable.lengthBytes > 0) {
        this.#events.fail('a readable descriptor in a receive queue');
        return taken;
      }
      const part = Math.min(chain.writable.lengthBytes, bytes.length - taken);
      chain.writable.copyFrom(bytes.subarray(taken, taken + part));
      queue.push(chain.head, part);
      taken += part;
    }
    if (queue.publish()) this.#activation.interrupt(queue.index);
    if (queue.broken !== undefined) this.#events.fail(queue.broken);
    return taken;
  }

  #tellReady(): void {
    if (this.#isStopped || !this.#isGuestOpen || !this.#hasRefused) return;
    this.#hasRefused = false;
    this.#service.onGuestReady();
  }
}

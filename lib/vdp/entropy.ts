/**
 * The virtio entropy device (virtio 1.2, 5.4): the guest's side of an EntropyService. One request is with the service at
 * a time; the others wait in the queue, so that the service's rate limit holds the guest and not the host's memory.
 */
import { VirtioDeviceId } from '../abi/virtio.js';
import { hostClock, type Clock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import type { SavedPart } from '../base/saved-state.js';
import type { EntropyService } from '../vsp/entropy/contract.js';
import { ConfigBytes } from './config-bytes.js';
import { entropyState } from './device-states.js';
import type { VirtioActivation, VirtioDevice } from './virtio-device.js';
import type { DescriptorChain, Virtqueue } from './virtqueue.js';

const QUEUE_SIZE = 64;
/** The most that one request is given; the driver looks at the used length (5.4.6.1). */
const MAX_REQUEST_BYTES = 64 * 1024;
/** From a request that the service failed to the next one, of this guest or of one after a reset. */
export const ENTROPY_RETRY_NS = 100_000_000n;
/** Requests in a row before others of the event loop have their turn, however fast the service is. */
const REQUESTS_PER_TURN = 16;

export class EntropyDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceId = VirtioDeviceId.ENTROPY;
  /** An encryption controller of another kind: there is no class for generators. */
  readonly pciClass = 0x108000;
  readonly features = 0n;
  readonly queueSizes = [QUEUE_SIZE];
  readonly config = new ConfigBytes(0);
  readonly #source: EntropySource;
  #session: EntropySession | undefined;
  readonly #counts = { requests: 0, bytes: 0 };

  constructor(name: string, service: EntropyService, clock: Clock = hostClock) {
    this.name = name;
    this.#source = new EntropySource(service, clock);
  }

  activate(activation: VirtioActivation): void {
    const queue = activation.queues[0];
    if (queue === undefined) return;
    const session = new EntropySession(this.#source, activation, queue, this.#counts);
    this.#session = session;
    queueMicrotask(() => session.notify());
  }

  notify(queueIndex: number): void {
    if (queueIndex === 0) this.#session?.notify();
  }

  /** At once: bytes that come later are dropped, before they reach guest memory. */
  reset(): Promise<void> {
    this.#session?.stop();
    this.#session = undefined;
    return Promise.resolve();
  }

  /** A request in flight is asked again. */
  saveState(): SavedPart {
    return entropyState.save({});
  }

  restoreState(part: SavedPart): void {
    entropyState.load(part);
  }

  close(): void {
    void this.reset();
  }

  inspect(): unknown {
    const { failed } = this.#source;
    return { active: this.#session !== undefined, waiting: this.#session?.isRunning ?? false, ...this.#counts, failed };
  }
}

/**
 * The service, asked once at a time for all sessions: a guest that asks and resets again and again would leave a
 * request behind each time. A generator that fails is asked again, but not at once.
 */
class EntropySource {
  readonly #service: EntropyService;
  readonly #clock: Clock;
  #busy: Promise<void> | undefined;
  #failed = 0;

  constructor(service: EntropyService, clock: Clock) {
    this.#service = service;
    this.#clock = clock;
  }

  /** Times that the service did not give any. */
  get failed(): number {
    return this.#failed;
  }

  /** Undefined when nobody wants them any more, or the service is closed. */
  async bytes(wanted: number, isGone: () => boolean): Promise<Uint8Array | undefined> {
    for (;;) {
      while (this.#busy !== undefined) await this.#busy;
      if (isGone()) return undefined;
      const asked = this.#service.bytes(wanted);
      const ended = (): void => (this.#busy = undefined);
      this.#busy = asked.then(ended, (error: unknown) => this.#onFailure(error).then(ended));
      try {
        return await asked;
      } catch (error) {
        if (isClosed(error)) return undefined;
      }
    }
  }

  async #onFailure(error: unknown): Promise<void> {
    this.#failed++;
    if (!isClosed(error)) await new Promise<void>((resolve) => this.#clock.setTimer(ENTROPY_RETRY_NS, resolve));
  }
}

function isClosed(error: unknown): boolean {
  return error instanceof VmmError && error.code === 'ERR_CLOSED';
}

class EntropySession {
  readonly #source: EntropySource;
  readonly #activation: VirtioActivation;
  readonly #queue: Virtqueue;
  readonly #counts: { requests: number; bytes: number };
  #stopped = false;
  #running = false;
  /** Bytes that wait for the queue to be let go, which a notification tells. */
  #onReleased: (() => void) | undefined;

  constructor(
    source: EntropySource,
    activation: VirtioActivation,
    queue: Virtqueue,
    counts: { requests: number; bytes: number },
  ) {
    this.#source = source;
    this.#activation = activation;
    this.#queue = queue;
    this.#counts = counts;
  }

  get isRunning(): boolean {
    return this.#running;
  }

  notify(): void {
    this.#released();
    if (this.#running || this.#stopped) return;
    this.#running = true;
    void this.#run();
  }

  stop(): void {
    this.#stopped = true;
    this.#released();
  }

  #released(): void {
    this.#onReleased?.();
    this.#onReleased = undefined;
  }

  async #run(): Promise<void> {
    try {
      this.#queue.disableNotifications();
      for (let left = REQUESTS_PER_TURN; !this.#stopped;) {
        const chain = this.#queue.pop();
        if (chain !== undefined) {
          if (!(await this.#answer(chain))) return;
        } else if (!this.#queue.enableNotifications()) {
          if (this.#queue.broken !== undefined) this.#fail(this.#queue.broken);
          return;
        }
        if (--left === 0) {
          await new Promise((resolve) => setImmediate(resolve));
          left = REQUESTS_PER_TURN;
        }
      }
    } finally {
      // In the same step as the last look at the queue, so that no notification falls in between.
      this.#running = false;
    }
  }

  /** False when the session has ended with it. */
  async #answer(chain: DescriptorChain): Promise<boolean> {
    const { head, readable, writable } = chain;
    // 5.4.6.1: never readable. One of no bytes at all can't get the one that 5.4.6.2 promises.
    if (readable.lengthBytes !== 0 || writable.lengthBytes === 0) {
      this.#fail(`a request for random bytes with ${readable.lengthBytes} readable, ${writable.lengthBytes} writable`);
      return false;
    }
    const wanted = Math.min(writable.lengthBytes, MAX_REQUEST_BYTES);
    const bytes = await this.#source.bytes(wanted, () => this.#stopped);
    // The service is closed, and the machine about to be: the request stays without an answer.
    if (bytes === undefined) this.#stopped = true;
    if (this.#stopped || bytes === undefined) return false;
    // A snapshot is being made: nothing of guest memory changes now.
    while (this.#queue.held && !this.#stopped) await new Promise<void>((resolve) => (this.#onReleased = resolve));
    if (this.#stopped) return false;
    const given = bytes.subarray(0, wanted);
    writable.copyFrom(given);
    this.#counts.requests++;
    this.#counts.bytes += given.length;
    this.#queue.push(head, given.length);
    if (this.#queue.publish()) this.#activation.interrupt(this.#queue.index);
    return true;
  }

  #fail(reason: string): void {
    this.#stopped = true;
    this.#activation.needsReset(reason);
  }
}

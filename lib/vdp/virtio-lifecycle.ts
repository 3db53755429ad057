/**
 * The life of a virtio device as any transport drives it: device status, feature negotiation, queue set-up, reset
 * (virtio 1.2, 2.1, 3.1 and 4.1.4.3). It knows no register's offset and no interrupt; what the driver does wrong is
 * counted and has no effect, or asks for a reset.
 *
 *   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK (features checked) -> DRIVER_OK: device.activate()
 *   DRIVER_OK -- write 0 --> status stays non-zero until device.reset() is done --> 0
 *   any -- needsReset() --> DEVICE_NEEDS_RESET: no notification reaches the device until the driver resets it
 */
import { VIRTIO_MSI_NO_VECTOR, VirtioStatus, VirtioTransportFeature } from '../abi/virtio-pci.js';
import { MAX_GPA } from '../base/address.js';
import { VmmError } from '../base/errors.js';
import type { Savable, SavedPart } from '../base/saved-state.js';
import type { LifecycleOptions, QueueSetup } from './lifecycle-contract.js';
import type { VirtioActivation } from './virtio-device.js';
import { lifecycleState, whyOther } from './virtio-state.js';
import type { Virtqueue, VirtqueueState } from './virtqueue.js';

const TRANSPORT_FEATURES =
  VirtioTransportFeature.VERSION_1 | VirtioTransportFeature.RING_INDIRECT_DESC | VirtioTransportFeature.RING_EVENT_IDX;
const DRIVER_BITS =
  VirtioStatus.ACKNOWLEDGE |
  VirtioStatus.DRIVER |
  VirtioStatus.FEATURES_OK |
  VirtioStatus.DRIVER_OK |
  VirtioStatus.FAILED;

export class VirtioLifecycle implements Savable {
  /** Everything that is offered. */
  readonly offered: bigint;
  configVector = VIRTIO_MSI_NO_VECTOR;

  readonly #options: LifecycleOptions;
  #status = 0;
  #accepted = 0n;
  #queues: QueueSetup[];
  /** While the device is active; anything it says under an older one is void. */
  #activation: VirtioActivation | undefined;
  #virtqueues: readonly (Virtqueue | undefined)[] = [];
  #mayTransfer = true;
  /** For a snapshot, or since one was restored. */
  #isHeld = false;
  /** Queues whose driver was interrupted since it was ready, and whether it was for the configuration. */
  readonly #interrupted = new Set<number>();
  #configInterrupted = false;
  /** Restored, and not run since. */
  #isRestored = false;
  /** Notified before DRIVER_OK. */
  readonly #early = new Set<number>();
  #resetting: Promise<void> | undefined;
  #isClosed = false;
  #generation = 0;
  #configSeen: string | undefined;
  readonly #counts = { activations: 0, resets: 0, notifications: 0, interrupts: 0 };

  constructor(options: LifecycleOptions) {
    this.#options = options;
    this.offered = options.device.features | TRANSPORT_FEATURES;
    this.#queues = this.#freshQueues();
  }

  get queueCount(): number {
    return this.#queues.length;
  }

  queue(index: number): QueueSetup | undefined {
    return this.#queues[index];
  }

  maxQueueSize(index: number): number {
    return this.#options.device.queueSizes[index] ?? 0;
  }

  /** Non-zero as long as a reset is under way. */
  get status(): number {
    return this.#status;
  }

  /** Registers can't be changed: a reset is under way, or the machine ends. */
  get isBusy(): boolean {
    return this.#resetting !== undefined || this.#isClosed;
  }

  get accepted(): bigint {
    return this.#accepted;
  }

  /** The driver's features; kept as written, checked when it sets FEATURES_OK. */
  set accepted(features: bigint) {
    if ((this.#status & VirtioStatus.FEATURES_OK) === 0) this.#accepted = features;
    else this.#wrong('features written after FEATURES_OK');
  }

  /**
   * Whether the device may begin to access memory; true at first. While not, its queues are held; afterwards it is
   * notified of all of them. What it had begun before is completed.
   */
  set mayTransfer(may: boolean) {
    if (may === this.#mayTransfer) return;
    this.#mayTransfer = may;
    this.#letGoOrHold();
  }

  /** For a snapshot: no chain is taken from now on, and none that a device keeps given back. Idempotent. */
  hold(): void {
    this.#isHeld = true;
    this.#letGoOrHold();
  }

  /**
   * The end of `hold`, or of a restore: the device is notified of every queue, since chains came meanwhile. After a restore
   * the driver is interrupted again for those of which it was before: that may have been on its way when the machine was
   * saved. One interrupt too many is allowed to a device, one too few is not.
   */
  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    if (this.#isRestored) {
      for (const index of this.#interrupted) this.#activation?.interrupt(index);
      if (this.#configInterrupted) this.#options.listener.onConfigInterrupt();
    }
    this.#isRestored = false;
    this.#letGoOrHold();
  }

  /** @throws VmmError ERR_SNAPSHOT_REFUSED for a device that can't be saved. */
  saveState(): SavedPart {
    const { device } = this.#options;
    if (!device.saveState) {
      throw new VmmError('ERR_SNAPSHOT_REFUSED', `${device.name} can't be saved: it has no state to give`);
    }
    // First: it publishes what it has completed.
    const own = device.saveState();
    const needsReset = (this.#status & VirtioStatus.DEVICE_NEEDS_RESET) !== 0;
    return lifecycleState.save({
      status: this.#status,
      offered: this.offered,
      accepted: this.#accepted,
      configVector: this.configVector,
      generation: this.#generation,
      ...(this.#configSeen === undefined ? {} : { configSeen: Buffer.from(this.#configSeen, 'latin1') }),
      isResetting: this.#resetting !== undefined,
      interrupted: [...this.#interrupted],
      configInterrupted: this.#configInterrupted,
      early: [...this.#early],
      queues: this.#queues.map((setup, index) => {
        const state = needsReset ? undefined : this.#virtqueues[index]?.state();
        return { ...setup, ...(state ? { ring: { ...state, inFlight: [...state.inFlight] } } : {}) };
      }),
      device: own,
    });
  }

  /** It is held then; `release` lets it run. */
  restoreState(part: SavedPart): void {
    const saved = lifecycleState.load(part);
    const { device } = this.#options;
    const reason = whyOther(saved, device, this.offered);
    if (reason !== undefined) throw this.#differs(reason);
    this.#isHeld = this.#isRestored = true;
    device.restoreState!(saved.device);
    if (saved.isResetting) {
      void device.reset();
      return this.#wasReset();
    }
    this.#status = saved.status & (DRIVER_BITS | VirtioStatus.DEVICE_NEEDS_RESET);
    this.#accepted = saved.accepted;
    this.configVector = saved.configVector;
    this.#generation = saved.generation;
    this.#configSeen = saved.configSeen && Buffer.from(saved.configSeen).toString('latin1');
    this.#queues = saved.queues.map(({ size, vector, enabled, descriptors, driver, device: used }) => {
      return { size, vector, enabled, descriptors, driver, device: used };
    });
    for (const index of saved.early) this.#early.add(index);
    for (const index of saved.interrupted) this.#interrupted.add(index);
    this.#configInterrupted = saved.configInterrupted;
    // One that needs a reset takes part in nothing until it has had it.
    if ((this.#status & VirtioStatus.DEVICE_NEEDS_RESET) !== 0) return void device.reset();
    if ((this.#status & VirtioStatus.DRIVER_OK) === 0) return;
    if ((this.#status & VirtioStatus.FEATURES_OK) === 0) throw this.#differs('DRIVER_OK without FEATURES_OK');
    const failure = this.#activate(saved.queues.map(({ ring }) => ring));
    if (failure !== undefined) throw this.#differs(failure);
  }

  writeStatus(value: number): void {
    if (value === 0) return this.#reset();
    const bits = value & DRIVER_BITS;
    if ((this.#status & DRIVER_BITS & ~bits) !== 0) this.#wrong('status bits taken back', hex(value));
    const set = bits & ~this.#status;
    this.#status |= set & ~(VirtioStatus.FEATURES_OK | VirtioStatus.DRIVER_OK);
    if ((set & VirtioStatus.FEATURES_OK) !== 0 && this.#featuresAreGood()) this.#status |= VirtioStatus.FEATURES_OK;
    if ((set & VirtioStatus.DRIVER_OK) === 0) return;
    if ((this.#status & VirtioStatus.FEATURES_OK) === 0) return this.#wrong('DRIVER_OK without FEATURES_OK');
    this.#status |= VirtioStatus.DRIVER_OK;
    const reason = this.#activate();
    if (reason !== undefined) this.#needsReset(reason);
  }

  /** Lets a queue take part; once, and before DRIVER_OK. */
  enableQueue(index: number, value: number): void {
    const setup = this.#queues[index];
    if (!setup || value !== 1) return this.#wrong('a wrong queue_enable', `queue ${index}, ${value}`);
    if (setup.enabled) return this.#wrong('a queue enabled twice', `queue ${index}`);
    if ((this.#status & VirtioStatus.FEATURES_OK) === 0) return this.#wrong('a queue enabled before FEATURES_OK');
    if ((this.#status & VirtioStatus.DRIVER_OK) !== 0) return this.#wrong('a queue enabled after DRIVER_OK');
    setup.enabled = true;
  }

  /** Changes a queue that is not enabled. */
  setUpQueue(index: number, change: (setup: QueueSetup) => void): void {
    const setup = this.#queues[index];
    if (!setup) this.#wrong('a queue that does not exist', `queue ${index}`);
    else if (setup.enabled) this.#wrong('a queue changed after it was enabled', `queue ${index}`);
    else change(setup);
  }

  /** The driver says that buffers are available. */
  notify(index: number): void {
    const active = this.#virtqueues[index] !== undefined;
    if (this.#resetting || (this.#status & VirtioStatus.DEVICE_NEEDS_RESET) !== 0) return;
    // It is made up for when the device may.
    if (active && !this.#mayRun) return;
    if (active) {
      this.#counts.notifications++;
      this.#options.device.notify(index);
    } else if (this.#queues[index]?.enabled === true) {
      this.#wrong('a notification before DRIVER_OK', `queue ${index}`);
      this.#early.add(index);
    } else {
      this.#wrong('a notification for a queue that is not enabled', `queue ${index}`);
    }
  }

  /**
   * Differs from the value before when the configuration space did. Devices tell of changes only while they are active;
   * so that a driver that reads earlier sees them as well, the space is compared with what it was.
   */
  configGeneration(): number {
    const { config } = this.#options.device;
    const bytes = new Uint8Array(config.sizeBytes);
    for (let at = 0; at < bytes.length; at++) bytes[at] = Number(config.read(at, 1));
    const seen = String.fromCharCode(...bytes);
    if (this.#configSeen !== undefined && seen !== this.#configSeen) this.#bumpGeneration();
    this.#configSeen = seen;
    return this.#generation;
  }

  /** The machine ends: resolves when the device no longer touches guest memory, and is closed. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#activation) this.#reset();
    await this.#resetting;
    this.#options.device.close();
  }

  inspect(): unknown {
    return {
      status: hex(this.#status),
      resetting: this.#resetting !== undefined,
      offered: hex(this.offered),
      accepted: hex(this.#accepted),
      queues: this.#queues.map((setup, index) => ({
        size: setup.size,
        enabled: setup.enabled,
        vector: setup.vector === VIRTIO_MSI_NO_VECTOR ? undefined : setup.vector,
        descriptors: hex(setup.descriptors),
        driver: hex(setup.driver),
        device: hex(setup.device),
        inFlight: this.#virtqueues[index]?.inFlight,
        broken: this.#virtqueues[index]?.broken,
      })),
      counts: { ...this.#counts },
    };
  }

  #featuresAreGood(): boolean {
    const unknown = this.#accepted & ~this.offered;
    if (unknown !== 0n) this.#wrong('features that were not offered', hex(unknown));
    else if ((this.#accepted & VirtioTransportFeature.VERSION_1) === 0n) this.#wrong('VERSION_1 not accepted');
    else return true;
    return false;
  }

  /** @param rings where the queues go on, from a snapshot. @returns why it can't be. */
  #activate(rings: readonly (VirtqueueState | undefined)[] = []): string | undefined {
    const { device, listener } = this.#options;
    if (this.#isClosed) return undefined;
    const made = this.#queues.map((setup, index) =>
      setup.enabled ? this.#makeQueue(index, setup, rings[index]) : undefined,
    );
    const reason = made.find((queue) => typeof queue === 'string');
    if (reason !== undefined) return reason;
    const queues = made as (Virtqueue | undefined)[];
    for (const queue of queues) if (queue) queue.held = !this.#mayRun;
    const activation: VirtioActivation = {
      features: this.#accepted,
      queues,
      interrupt: (index) => {
        const setup = this.#queues[index];
        if (this.#activation !== activation || setup?.enabled !== true) return;
        this.#counts.interrupts++;
        this.#interrupted.add(index);
        listener.onQueueInterrupt(setup);
      },
      configChanged: () => {
        if (this.#activation !== activation) return;
        this.#bumpGeneration();
        this.#configInterrupted = true;
        listener.onConfigInterrupt();
      },
      needsReset: (why) => {
        if (this.#activation === activation) this.#needsReset(why);
      },
    };
    this.#activation = activation;
    this.#virtqueues = queues;
    this.#counts.activations++;
    device.activate(activation);
    listener.onQueues([...queues.keys()].filter((index) => queues[index] !== undefined));
    for (const index of this.#early) this.notify(index);
    this.#early.clear();
    return undefined;
  }

  get #mayRun(): boolean {
    return this.#mayTransfer && !this.#isHeld;
  }

  #letGoOrHold(): void {
    for (const queue of this.#virtqueues) if (queue) queue.held = !this.#mayRun;
    if (!this.#mayRun) return;
    for (const index of this.#virtqueues.keys()) if (this.#virtqueues[index]) this.notify(index);
  }

  #differs(reason: string): VmmError {
    return new VmmError('ERR_SNAPSHOT', `${this.#options.device.name} can't be what the snapshot says: ${reason}`);
  }

  #makeQueue(index: number, setup: QueueSetup, state: VirtqueueState | undefined): Virtqueue | string {
    const [descriptors, driver, device] = [setup.descriptors, setup.driver, setup.device].map(Number);
    if (Math.max(descriptors!, driver!, device!) >= MAX_GPA) return `queue ${index} lies beyond every memory`;
    return this.#options.makeQueue({
      index,
      memory: this.#options.memory,
      size: setup.size,
      maxSize: this.maxQueueSize(index),
      addresses: { descriptors: descriptors!, driver: driver!, device: device! },
      features: this.#accepted,
      state,
    });
  }

  #needsReset(reason: string): void {
    if ((this.#status & VirtioStatus.DEVICE_NEEDS_RESET) !== 0) return;
    this.#wrong('the device needs a reset', reason);
    this.#status |= VirtioStatus.DEVICE_NEEDS_RESET;
    this.#configInterrupted = true;
    // 2.1.2: the driver is told only after it has said DRIVER_OK.
    if ((this.#status & VirtioStatus.DRIVER_OK) !== 0) this.#options.listener.onConfigInterrupt();
  }

  #reset(): void {
    if (this.#resetting) return;
    this.#counts.resets++;
    if (!this.#activation) return this.#wasReset();
    this.#activation = undefined;
    this.#virtqueues = [];
    this.#options.listener.onQueues([]);
    const { device, listener } = this.#options;
    // A device whose reset fails stays in it: the machine ends by the failure.
    this.#resetting = (async () => device.reset())().then(
      () => {
        this.#resetting = undefined;
        this.#wasReset();
      },
      (cause: unknown) => listener.onFailure(cause),
    );
  }

  #wasReset(): void {
    this.#status = 0;
    this.#accepted = 0n;
    this.configVector = VIRTIO_MSI_NO_VECTOR;
    this.#queues = this.#freshQueues();
    this.#early.clear();
    this.#interrupted.clear();
    this.#configInterrupted = false;
    this.#options.listener.onReset();
  }

  #freshQueues(): QueueSetup[] {
    return this.#options.device.queueSizes.map((size) => ({
      size,
      vector: VIRTIO_MSI_NO_VECTOR,
      enabled: false,
      descriptors: 0n,
      driver: 0n,
      device: 0n,
    }));
  }

  #bumpGeneration(): void {
    this.#generation = (this.#generation + 1) & 0xff;
  }

  #wrong(kind: string, detail?: string): void {
    this.#options.misbehaviour.count(kind, detail);
  }
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

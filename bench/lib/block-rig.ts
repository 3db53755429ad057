/**
 * The device model alone: guest memory, the I/O engine, a disk's provider over a file, the block device and its queue,
 * driven by the mock driver in place of a guest. `depth` requests of 4 KiB are in flight all the time: each that has
 * ended is sent again, to another place of the disk.
 */
import { VirtioBlkStatus, VirtioBlkType } from '#lib/abi/virtio.js';
import { gpa } from '#lib/base/address.js';
import { silentLogger } from '#lib/base/logger.js';
import { loadBinding } from '#lib/kvm/binding.js';
import { AddressSpace, NativeIoEngine, type NativeIoEngineOptions } from '#lib/memory/index.js';
import { BlockDevice } from '#lib/vdp/index.js';
import { MockDriver, type Piece } from '#lib/vdp/mock-driver.js';
import { SplitQueue } from '#lib/vdp/split-queue.js';
import type { VirtioActivation } from '#lib/vdp/virtio-device.js';
import { BlockProvider, fileDisk } from '#lib/vsp/index.js';

const MEMORY_BYTES = 16 * 2 ** 20;
const QUEUE_SIZE = 256;
const QUEUE = 0x10_0000;
/** One line a slot: the request's header, and its status byte. */
const HEADERS = 0x12_0000;
const HEADER_STRIDE = 64;
const STATUS_AT = 32;
/** One line a slot: an indirect table of three descriptors. */
const TABLES = 0x14_0000;
const TABLE_STRIDE = 64;
const DATA = 0x20_0000;
export const REQUEST_BYTES = 4096;
const SECTORS = REQUEST_BYTES / 512;

/** Milliseconds that this process has spent in the addon's I/O calls since the first rig was made. */
let nativeMs = 0;
let isTimed = false;

export interface BlockRigOptions {
  readonly file: string;
  readonly engine: NonNullable<NativeIoEngineOptions['kind']>;
  readonly depth: number;
  readonly kind: 'read' | 'write';
}

export interface BlockSample {
  readonly requests: number;
  readonly elapsedMs: number;
  /** CPU time of the whole process, the kernel's for it included. */
  readonly cpuMs: number;
  /** Of the elapsed time, the mock driver's own, and what was spent in the addon and the system calls it makes. */
  readonly driverMs: number;
  readonly nativeMs: number;
  readonly interrupts: number;
}

export class BlockRig {
  readonly provider: BlockProvider;
  readonly engine: NativeIoEngine;
  /** The longest time between two interrupts since it was last set. */
  longestGapMs = 0;
  readonly #memory: AddressSpace;
  readonly #device: BlockDevice;
  readonly #driver: MockDriver;
  readonly #headers: Uint32Array;
  readonly #status: Uint8Array;
  readonly #chains: readonly (readonly Piece[])[];
  /** The slot of each head. */
  readonly #slots = new Uint16Array(QUEUE_SIZE);
  readonly #idle: number[];
  readonly #places: number;
  readonly #depth: number;
  #wanted = 0;
  #sent = 0;
  #ended = 0;
  #driverMs = 0;
  #interrupts = 0;
  #lastMs = 0;
  #random = 0x2545f491;
  #finished: (() => void) | undefined;
  #failure: Error | undefined;

  static async open(options: BlockRigOptions): Promise<BlockRig> {
    timeNativeCalls();
    const memory = new AddressSpace({ ranges: [{ gpa: gpa(0), sizeBytes: MEMORY_BYTES }] });
    const engine = new NativeIoEngine(memory, { kind: options.engine });
    try {
      const provider = await BlockProvider.open(fileDisk(options.file), { id: 'disk', engine, logger: silentLogger });
      return new BlockRig(memory, engine, provider, options);
    } catch (error) {
      await engine.close();
      memory.close();
      throw error;
    }
  }

  private constructor(memory: AddressSpace, engine: NativeIoEngine, provider: BlockProvider, options: BlockRigOptions) {
    const { depth, kind } = options;
    this.provider = provider;
    this.engine = engine;
    this.#memory = memory;
    this.#depth = depth;
    this.#places = provider.geometry.sizeBytes / REQUEST_BYTES;
    this.#device = new BlockDevice(provider, { queueSize: QUEUE_SIZE });
    this.#driver = new MockDriver(memory, { size: QUEUE_SIZE, gpa: QUEUE, eventIndex: true, indirect: true });
    const lines = memory.view(HEADERS, depth * HEADER_STRIDE);
    this.#status = lines;
    this.#headers = new Uint32Array(lines.buffer, lines.byteOffset, lines.byteLength / 4);
    this.#chains = Array.from({ length: depth }, (_, slot) => {
      const header = HEADERS + slot * HEADER_STRIDE;
      this.#headers[(slot * HEADER_STRIDE) / 4] = kind === 'read' ? VirtioBlkType.IN : VirtioBlkType.OUT;
      return [
        { gpa: header, length: 16 },
        { gpa: DATA + slot * REQUEST_BYTES, length: REQUEST_BYTES, writable: kind === 'read' },
        { gpa: header + STATUS_AT, length: 1, writable: true },
      ];
    });
    this.#idle = Array.from({ length: depth }, (_, slot) => slot);
    const activation: VirtioActivation = {
      features: this.#device.features,
      queues: [new SplitQueue(this.#driver.queueOptions)],
      interrupt: () => {
        this.#interrupts++;
        // As a guest: not inside of the device's call.
        queueMicrotask(() => this.#serve());
      },
      configChanged: () => undefined,
      needsReset: (reason) => this.#fail(new Error(`the device needs a reset: ${reason}`)),
    };
    this.#device.activate(activation);
  }

  /** Sends `requests` and resolves when all have ended. */
  async run(requests: number): Promise<BlockSample> {
    this.#wanted = requests;
    this.#sent = this.#ended = this.#driverMs = this.#interrupts = 0;
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    const nativeBeforeMs = nativeMs;
    this.#lastMs = startMs;
    const finished = new Promise<void>((resolve) => (this.#finished = resolve));
    this.#serve();
    await finished;
    const elapsedMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(cpu);
    if (this.#failure) throw this.#failure;
    return {
      requests: this.#ended,
      elapsedMs,
      cpuMs: (user + system) / 1000,
      driverMs: this.#driverMs,
      nativeMs: nativeMs - nativeBeforeMs,
      interrupts: this.#interrupts,
    };
  }

  /** What is in flight ends; nothing more is sent. */
  stop(): void {
    this.#wanted = this.#sent;
  }

  get inFlight(): number {
    return this.#sent - this.#ended;
  }

  async close(): Promise<void> {
    await this.#device.reset();
    this.#device.close();
    await this.provider.close();
    await this.engine.close();
    this.#memory.close();
  }

  /** The driver: takes what has ended, sends as many again, notifies if the device asks for it. */
  #serve(): void {
    const startMs = performance.now();
    this.longestGapMs = Math.max(this.longestGapMs, startMs - this.#lastMs);
    this.#lastMs = startMs;
    do {
      for (const { head } of this.#driver.collect()) {
        const slot = this.#slots[head]!;
        const status = this.#status[slot * HEADER_STRIDE + STATUS_AT];
        if (status !== VirtioBlkStatus.OK)
          return this.#fail(new Error(`a request ended with status ${String(status)}`));
        this.#idle.push(slot);
        this.#ended++;
      }
      while (this.#sent < this.#wanted && this.#idle.length > 0) this.#send(this.#idle.pop()!);
    } while (this.#driver.enableInterrupts());
    const notifies = this.#driver.publish();
    this.#driverMs += performance.now() - startMs;
    if (notifies) this.#device.notify(0);
    if (this.#ended === this.#sent && this.#sent >= this.#wanted) this.#finished?.();
  }

  #send(slot: number): void {
    const at = (slot * HEADER_STRIDE) / 4;
    // xorshift32: the same places in every run.
    let random = this.#random;
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    this.#random = random;
    this.#headers[at + 2] = ((random >>> 0) % this.#places) * SECTORS;
    this.#status[slot * HEADER_STRIDE + STATUS_AT] = 0xff;
    this.#slots[this.#driver.addIndirect(this.#chains[slot]!, TABLES + slot * TABLE_STRIDE)!] = slot;
    this.#sent++;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#finished?.();
  }
}

/** Both calls hand over or take a batch, so that two looks at the clock cost little of what they measure. */
function timeNativeCalls(): void {
  if (isTimed) return;
  isTimed = true;
  const { addon } = loadBinding();
  const timed = (call: () => number): number => {
    const startMs = performance.now();
    const count = call();
    nativeMs += performance.now() - startMs;
    return count;
  };
  class TimedQueue extends addon.IoQueue {
    override submit(count: number): number {
      return timed(() => super.submit(count));
    }
    override reap(): number {
      return timed(() => super.reap());
    }
  }
  (addon as { IoQueue: typeof addon.IoQueue }).IoQueue = TimedQueue;
}

/**
 * `sharedDisk(disk)`: one disk of the host lent to several guests at once (row D7). Each guest reads it through a port of its own, in its
 * fair share and within its limits, and keeps what it changes in an overlay of its own (`copyOnWrite`): nobody sees another's changes.
 * The host can take the disk back in the middle of I/O: guests then go on over a stand-in, and return when it is given back.
 *
 *   guest's provider [overlay] -> port: held? -> rate limit -> fair queue of all ports -> the disk | its stand-in
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import { checkInteger, checkOptionNames } from '../../base/options.js';
import { TurnQueue } from '../../base/turn-queue.js';
import type { IoVector } from '../../memory/io-vector.js';
import type { BackendDescription } from '../contract.js';
import { waitFor } from '../deadline.js';
import { checkTrafficLimits, type TrafficLimits } from '../sharing/budget.js';
import { FairQueue, type Flow } from '../sharing/fair-queue.js';
import { Pacer } from '../sharing/pacer.js';
import type { BlockBackend, BlockDone, BlockGeometry } from './contract.js';
import type { BlockOpenContext, BlockSource } from './source.js';

export interface SharedDiskOptions {
  /** Requests of all guests together that are handed to the disk at once. Default 32. */
  readonly depth?: number;
  readonly clock?: Clock;
}

export interface SharedGuestOptions {
  /** Its share of the disk against that of others. Default 1. */
  readonly weight?: number;
  /** What it may have at most, however idle the disk is. */
  readonly limits?: TrafficLimits;
}

export interface TakeBackOptions {
  /** How long what is in flight on the disk may take to end, in ns. Default 5 s. */
  readonly drainNs?: bigint;
  readonly signal?: AbortSignal;
}

const DEFAULT_DEPTH = 32;
const DRAIN_NS = 5_000_000_000n;
/** What a request costs besides its bytes, in bytes: small ones are not free. */
const REQUEST_COST_BYTES = 4096;

/**
 * One disk for several guests, which may only read it: their disks are `readOnly` or have a `copyOnWrite` of their own.
 *
 * @example
 * const base = sharedDisk(fileDisk('base.img'));
 * const disks = [{ id: 'root', backend: base.guest({ weight: 2 }), copyOnWrite: '1GiB' }];
 */
export function sharedDisk(disk: BlockSource, options: SharedDiskOptions = {}): SharedDisk {
  checkOptionNames('sharedDisk', options, ['depth', 'clock']);
  if (typeof disk !== 'object' || (disk as BlockSource | null)?.class !== 'block') {
    throw new TypeError('sharedDisk: a disk is wanted, such as fileDisk(path)');
  }
  const depth = checkInteger('sharedDisk: depth', options.depth ?? DEFAULT_DEPTH, 1, 4096);
  return new SharedDisk(disk, depth, options.clock ?? hostClock);
}

export class SharedDisk {
  readonly #disk: BlockSource;
  readonly #clock: Clock;
  readonly #queue: FairQueue;
  readonly #ports = new Set<SharedPort>();
  /** Openings, taking and giving back come one after another. */
  readonly #turns = new TurnQueue();
  #standIn: BlockSource | undefined;
  #takeBacks = 0;

  /** Made by sharedDisk(). */
  constructor(disk: BlockSource, depth: number, clock: Clock) {
    this.#disk = disk;
    this.#clock = clock;
    this.#queue = new FairQueue(depth);
  }

  /** For one guest's disk. @throws TypeError, RangeError for a weight or limits that are none. */
  guest(options: SharedGuestOptions = {}): BlockSource {
    checkOptionNames('guest', options, ['weight', 'limits']);
    const { weight = 1, limits = {} } = options;
    checkTrafficLimits('guest.limits', limits);
    this.#queue.flow(weight);
    return {
      class: 'block',
      describe: () => ({ kind: 'shared', weight, disk: (this.#standIn ?? this.#disk).describe() }),
      open: (context) =>
        this.#turns.run(async () => {
          const backend = await (this.#standIn ?? this.#disk).open({ ...context, readOnly: true });
          const port = new SharedPort(backend, context, this.#queue.flow(weight), new Pacer(this.#clock, limits), {
            isWithdrawn: () => this.#standIn !== undefined,
            closed: () => void this.#ports.delete(port),
          });
          this.#ports.add(port);
          return port;
        }, context.signal),
    };
  }

  /**
   * Takes the disk back for a use of the host's own: requests in flight end, the guests go on over `standIn`, which has to hold the same
   * data, and the disk is closed when this resolves. What the guests changed is in their overlays and stays.
   *
   * @throws VmmError ERR_STATE when it is taken back already; ERR_DISK_IMAGE for a stand-in of another geometry; ERR_TIMEOUT when
   *   requests do not end in time; of the stand-in; AbortError. The guests keep the disk then.
   */
  async takeBack(standIn: BlockSource, options: TakeBackOptions = {}): Promise<void> {
    checkOptionNames('takeBack', options, ['drainNs', 'signal']);
    await this.#turns.run(async () => {
      if (this.#standIn) throw new VmmError('ERR_STATE', 'the disk is taken back already');
      await this.#moveTo(standIn, options, () => {
        this.#standIn = standIn;
        this.#takeBacks++;
      });
    }, options.signal);
  }

  /** Gives it to the guests again. @throws VmmError ERR_STATE when they have it; as takeBack, and they stay on the stand-in then. */
  async giveBack(options: TakeBackOptions = {}): Promise<void> {
    checkOptionNames('giveBack', options, ['drainNs', 'signal']);
    await this.#turns.run(async () => {
      if (!this.#standIn) throw new VmmError('ERR_STATE', 'the disk is not taken back');
      await this.#moveTo(this.#disk, options, () => (this.#standIn = undefined));
    }, options.signal);
  }

  /** How many requests are on the disk, what each guest has had of it, and what waits. */
  inspect(): unknown {
    return {
      isTakenBack: this.#standIn !== undefined,
      takeBacks: this.#takeBacks,
      inService: this.#queue.inService,
      guests: [...this.#ports].map((port) => port.inspect()),
    };
  }

  /** All guests, or none; `moved` is called when they have. Resolves when what served them before is closed. */
  async #moveTo(source: BlockSource, options: TakeBackOptions, moved: () => void): Promise<void> {
    const { drainNs = DRAIN_NS, signal } = options;
    const ports = [...this.#ports];
    const opened: BlockBackend[] = [];
    try {
      for (const port of ports) opened.push(await port.openNext(source, signal));
      for (const port of ports) port.hold();
      const drained = Promise.all(ports.map((port) => port.drained())).then(() => undefined);
      const what = `the requests in flight on a shared disk`;
      await waitFor(drained, { clock: this.#clock, maxNs: drainNs, signal, what });
    } catch (error) {
      for (const port of ports) port.release();
      await Promise.allSettled(opened.map((backend) => backend.close()));
      throw error;
    }
    const before = ports.map((port, index) => port.swap(opened[index]!));
    moved();
    for (const port of ports) port.release();
    await Promise.all(ports.map((port, index) => port.closeFormer(before[index]!)));
  }
}

/** The shared disk, as a port knows it. */
interface SharedEnd {
  isWithdrawn(): boolean;
  closed(): void;
}

class SharedPort implements BlockBackend {
  readonly #context: BlockOpenContext;
  readonly #flow: Flow;
  readonly #pacer: Pacer;
  readonly #shared: SharedEnd;
  #inner: BlockBackend;
  #isClosed = false;
  #inFlight = 0;
  /** While the backend below is changed. */
  #held: (() => void)[] | undefined;
  #onDrained: (() => void)[] = [];
  #operations = 0;
  #bytes = 0;

  constructor(inner: BlockBackend, context: BlockOpenContext, flow: Flow, pacer: Pacer, shared: SharedEnd) {
    this.#inner = inner;
    this.#context = context;
    this.#flow = flow;
    this.#pacer = pacer;
    this.#shared = shared;
  }

  get geometry(): BlockGeometry {
    return this.#inner.geometry;
  }

  get isStandIn(): boolean {
    return this.#shared.isWithdrawn();
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#pacer.submit(data.lengthBytes, () => {
      this.#flow.submit(REQUEST_COST_BYTES + data.lengthBytes, () => this.#start(offset, data, done));
    });
  }

  identify(): string {
    return this.#inner.identify?.() ?? '';
  }

  describe(): BackendDescription {
    return { kind: 'shared', withdrawn: this.isStandIn, disk: this.#inner.describe() };
  }

  hurry(): void {
    this.#pacer.hurry();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#shared.closed();
    await this.#inner.close();
  }

  inspect() {
    const { waiting: queued } = this.#flow;
    return {
      operations: this.#operations,
      bytes: this.#bytes,
      inFlight: this.#inFlight,
      queued,
      paced: this.#pacer.waiting,
    };
  }

  /** Opens what is to serve next, for the same guest. */
  async openNext(source: BlockSource, signal: AbortSignal | undefined): Promise<BlockBackend> {
    const next = await source.open({ ...this.#context, readOnly: true, signal });
    const { sizeBytes, blockBytes } = this.geometry;
    if (next.geometry.sizeBytes === sizeBytes && next.geometry.blockBytes === blockBytes) return next;
    await next.close();
    const found = `${next.geometry.sizeBytes} bytes in blocks of ${next.geometry.blockBytes}`;
    throw new VmmError('ERR_DISK_IMAGE', `shared disk: ${found}, in place of ${sizeBytes} in blocks of ${blockBytes}`);
  }

  hold(): void {
    this.#held ??= [];
  }

  drained(): Promise<void> {
    return this.#inFlight === 0 ? Promise.resolve() : new Promise((resolve) => this.#onDrained.push(resolve));
  }

  /** With nothing in flight: another backend from now on; the one before is the result. One that was closed wants none any more. */
  swap(next: BlockBackend): BlockBackend {
    if (this.#isClosed) return next;
    const before = this.#inner;
    this.#inner = next;
    return before;
  }

  /** Nothing was written to it, so that a close that fails costs nobody anything. */
  async closeFormer(backend: BlockBackend): Promise<void> {
    try {
      await backend.close();
    } catch (error) {
      this.#context.logger.log('warn', 'a backend of a shared disk failed to close', {
        error,
        backend: backend.describe(),
      });
    }
  }

  release(): void {
    const held = this.#held;
    this.#held = undefined;
    for (const start of held ?? []) start();
  }

  /** Its turn has come: it holds a place in the queue's service until it ends. */
  #start(offset: number, data: IoVector, done: BlockDone): void {
    if (this.#held) {
      this.#held.push(() => this.#start(offset, data, done));
      return;
    }
    this.#inFlight++;
    this.#inner.read(offset, data, (error) => {
      this.#inFlight--;
      this.#operations++;
      this.#bytes += data.lengthBytes;
      done(error);
      this.#flow.ended();
      if (this.#inFlight > 0) return;
      for (const resolve of this.#onDrained.splice(0)) resolve();
    });
  }
}

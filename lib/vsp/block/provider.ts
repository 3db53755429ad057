/**
 * The provider of a disk: it stands between a proxy (vdp) and a backend (HAL) or what emulates it (HEL). The set of
 * functions is whole from the start; a change of the backend changes who does them, never which there are. Here is the
 * life of the device: opening, geometry, change of the backend, preparation for a snapshot. What happens to a request
 * is in dispatcher.ts. It must not touch guest memory, know virtio, or throw for what a guest does.
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import { TurnQueue } from '../../base/turn-queue.js';
import { PAGE_SIZE } from '../../base/units.js';
import type { IoEngine } from '../../memory/io-engine.js';
import type { IoVector } from '../../memory/io-vector.js';
import type { DeviceContract } from '../contract.js';
import { waitFor } from '../deadline.js';
import type { PrepareOptions, Quiescable } from '../quiesce.js';
import { blockProviderState } from '../state.js';
import type { TrafficLimits } from '../sharing/budget.js';
import * as kinds from './call.js';
import {
  BLOCK_FUNCTIONS,
  SECTOR_BYTES,
  type BlockBackend,
  type BlockDone,
  type BlockGeometry,
  type BlockService,
} from './contract.js';
import type { RequestGate } from './gate.js';
import { cleanSerial, serialOf } from './hel/identify.js';
import { CopyOnWriteOverlay } from './hel/overlay.js';
import { topologyOf } from './hel/topology.js';
import { closeInTime } from './closing.js';
import type { CutHost } from './cut.js';
import { BlockDispatcher } from './dispatcher.js';
import { BlockLane } from './lane.js';
import { openBackend } from './open.js';
import { changeBackend, type RebindOptions, type RebindReport } from './rebind.js';
import type { BlockSource } from './source.js';
import type { FrozenUnits } from './unit-store.js';

export interface BlockProviderOptions {
  /** Whose disk it is, for probes. */
  readonly machine?: string | undefined;
  readonly id: string;
  readonly engine: IoEngine;
  readonly logger: Logger;
  /** Default: the host's. */
  readonly clock?: Clock | undefined;
  /** The guest may only read. Default false. */
  readonly readOnly?: boolean | undefined;
  /**
   * The backend is only read; what the guest changes is kept in memory, at most `maxBytes` of it, and gone when the
   * device is closed. Beyond the bound writes fail with 'no-space'.
   */
  readonly copyOnWrite?: { readonly maxBytes: number } | undefined;
  /** The serial number that the guest sees. Default: the backend's own, else one made of the id. */
  readonly serial?: string | undefined;
  /** What the guest may do over time, over whatever backend. Checked. Default: all that it can. */
  readonly limits?: TrafficLimits | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class BlockProvider implements BlockService, Quiescable, Savable, CutHost {
  readonly id: string;
  readonly readOnly: boolean;
  readonly #options: BlockProviderOptions;
  readonly #owner: object;
  #source: BlockSource;
  readonly #clock: Clock;
  #serial: string;
  readonly #listeners = new Set<(geometry: BlockGeometry) => void>();
  readonly #dispatcher: BlockDispatcher;
  #geometry: BlockGeometry;
  #rebinds = 0;
  #lastRebind: RebindReport | undefined;
  #closed: Promise<void> | undefined;
  #released = Promise.resolve();
  /** Changes of backend, preparations and the close come one after another. */
  readonly #turns = new TurnQueue();
  #prepared = false;

  /**
   * Opens the backend and makes the device's provider.
   *
   * @throws VmmError ERR_DISK_IMAGE, ERR_DISK_LOCKED, ERR_SYSTEM as the source does; AbortError.
   */
  static async open(source: BlockSource, options: BlockProviderOptions): Promise<BlockProvider> {
    const owner = {};
    const backend = await open(source, options, owner, options.signal);
    return new BlockProvider(source, backend, options, owner);
  }

  private constructor(source: BlockSource, backend: BlockBackend, options: BlockProviderOptions, owner: object) {
    this.id = options.id;
    this.readOnly = options.readOnly === true;
    this.#options = options;
    this.#owner = owner;
    this.#source = source;
    this.#clock = options.clock ?? hostClock;
    const copyOnWrite = this.readOnly ? undefined : options.copyOnWrite;
    const lane = new BlockLane(
      backend,
      copyOnWrite &&
        ((base) => {
          const unitBytes = Math.max(PAGE_SIZE, backend.geometry.blockBytes);
          return new CopyOnWriteOverlay(base, unitBytes, copyOnWrite.maxBytes);
        }),
    );
    this.#dispatcher = new BlockDispatcher(lane, {
      machine: options.machine,
      id: options.id,
      readOnly: this.readOnly,
      clock: this.#clock,
      logger: options.logger,
      limits: options.limits,
    });
    const { physicalBlockBytes, optimalIoBytes } = topologyOf(backend.geometry);
    const { sizeBytes } = backend.geometry;
    this.#geometry = { sizeBytes, blockBytes: SECTOR_BYTES, physicalBlockBytes, optimalIoBytes };
    this.#serial = cleanSerial(options.serial) ?? cleanSerial(backend.identify?.()) ?? serialOf(options.id);
    this.#listen(backend);
  }

  get source(): BlockSource {
    return this.#source;
  }

  /** Requests that change data and have started: with nothing in flight, whether there were any since another look. */
  get changes(): number {
    return this.#dispatcher.changes;
  }

  get copiesOnWrite(): boolean {
    return this.#dispatcher.lane.overlay !== undefined;
  }

  get keepsContents(): boolean {
    const { overlay, backend } = this.#dispatcher.lane;
    return overlay !== undefined || backend.freeze !== undefined;
  }

  /** At rest: what is in memory and nowhere else, as it is now. */
  freeze(): FrozenUnits | undefined {
    const { overlay, backend } = this.#dispatcher.lane;
    return overlay ? overlay.freeze() : backend.freeze?.();
  }

  /** Changed blocks of a snapshot, before the first request. @throws VmmError ERR_SNAPSHOT without copyOnWrite, or for too many. */
  fill(changes: Pick<FrozenUnits, 'unitBytes' | 'units'>): void {
    const { overlay } = this.#dispatcher.lane;
    if (!overlay) throw new VmmError('ERR_SNAPSHOT', `disk ${this.id} keeps no changes in memory; the snapshot's does`);
    overlay.fill(changes);
  }

  get title(): string {
    return `disk ${this.id}`;
  }

  /** Block sizes stay as they were offered first; only the size changes. */
  get geometry(): BlockGeometry {
    this.#dispatcher.books.book(kinds.TOPOLOGY, false, 0);
    return this.#geometry;
  }

  get contract(): DeviceContract {
    return {
      class: 'block',
      functions: this.#dispatcher.books.report((name) => this.#dispatcher.lane.servedBy(name, this.#serial)),
      backend: (this.#dispatcher.lane.overlay ?? this.#dispatcher.lane.backend).describe(),
      rebinds: this.#rebinds,
      ...(this.#options.limits && { limits: this.#options.limits }),
    };
  }

  /** Requests in flight, held, and waiting for the limits, and what the last change of the backend cost. */
  inspect(): { inFlight: number; held: number; paced: number; lastRebind: RebindReport | undefined } {
    const { gate, paced } = this.#dispatcher;
    return { inFlight: gate.inFlight, held: gate.held, paced, lastRebind: this.#lastRebind };
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#dispatcher.submit(kinds.READ, offset, data.lengthBytes, data, false, done);
  }

  write(offset: number, data: IoVector, done: BlockDone): void {
    this.#dispatcher.submit(kinds.WRITE, offset, data.lengthBytes, data, false, done);
  }

  flush(done: BlockDone): void {
    this.#dispatcher.submit(kinds.FLUSH, 0, 0, undefined, false, done);
  }

  /** As flush(), for the host itself: it waits for none of the guest's limits. */
  flushNow(done: BlockDone): void {
    this.#dispatcher.submit(kinds.FLUSH, 0, 0, undefined, false, done, true);
  }

  discard(offset: number, lengthBytes: number, done: BlockDone): void {
    this.#dispatcher.submit(kinds.DISCARD, offset, lengthBytes, undefined, false, done);
  }

  writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void {
    this.#dispatcher.submit(kinds.WRITE_ZEROES, offset, lengthBytes, undefined, mayUnmap, done);
  }

  identify(): string {
    this.#dispatcher.books.book(kinds.IDENTIFY, false, 0);
    return this.#serial;
  }

  abandon(): void {
    this.#dispatcher.abandon();
  }

  onGeometry(listener: (geometry: BlockGeometry) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Looks whether the medium has another size, and tells the guest; the size then. @throws VmmError. */
  async refreshGeometry(): Promise<BlockGeometry> {
    this.#checkOpen();
    const startNs = this.#dispatcher.nowNs();
    try {
      const geometry = await this.#dispatcher.lane.backend.refreshGeometry?.();
      if (geometry) this.#resized(geometry, startNs);
      return this.#geometry;
    } catch (error) {
      this.#dispatcher.books.book(kinds.RESIZE, true, this.#dispatcher.nowNs() - startNs);
      throw error;
    }
  }

  /**
   * Changes the backend while the guest runs. Requests in flight end on the old one, those that come meanwhile go on on
   * the new one, in order; a refusal leaves the old one serving.
   *
   * @throws VmmError of what refused it; ERR_TIMEOUT when the old backend did not drain in time; AbortError.
   */
  rebind(source: BlockSource, options: RebindOptions = {}): Promise<RebindReport> {
    return this.#turns.run(async () => {
      this.#checkOpen();
      this.#lastRebind = await changeBackend(
        {
          id: this.id,
          clock: this.#clock,
          logger: this.#options.logger,
          gate: this.#dispatcher.gate as RequestGate<unknown>,
          sizeBytes: () => this.#geometry.sizeBytes,
          writesToBackend: !this.readOnly && this.#dispatcher.lane.overlay === undefined,
          backend: () => this.#dispatcher.lane.backend,
          open: (next, signal) => open(next, this.#options, this.#owner, signal),
          adopt: (backend) => {
            this.#adopt(backend);
            this.#source = source;
          },
          owe: (backend) => this.#dispatcher.owed.begin(backend),
          lose: (error) => this.#dispatcher.owed.fail(error),
        },
        source,
        options,
      );
      return this.#lastRebind;
    });
  }

  /**
   * For a snapshot: holds new requests and resolves when nothing is in flight. `resume()` lets them go on.
   *
   * @throws VmmError ERR_TIMEOUT when requests are still in flight at the deadline; AbortError. Nothing is held then.
   */
  prepare(options: PrepareOptions = {}): Promise<void> {
    return this.#turns.run(async () => {
      this.#checkOpen();
      if (this.#prepared) return;
      this.#dispatcher.gate.hold();
      this.#dispatcher.lane.backend.hurry?.();
      try {
        const { deadlineNs, signal } = options;
        const leftNs = deadlineNs === undefined ? undefined : deadlineNs - this.#clock.nowNs();
        const maxNs = leftNs !== undefined && leftNs < 0n ? 0n : leftNs;
        const what = `${this.#dispatcher.gate.inFlight} requests in flight`;
        await waitFor(this.#dispatcher.gate.drained(), { clock: this.#clock, maxNs, signal, what });
        this.#prepared = true;
      } catch (error) {
        this.#dispatcher.gate.release();
        throw error;
      }
    }, options.signal);
  }

  /** After `prepare`: held requests go on. Nothing happens otherwise. */
  resume(): void {
    if (!this.#prepared) return;
    this.#prepared = false;
    this.#dispatcher.gate.release();
  }

  saveState(): SavedPart {
    const { sizeBytes, physicalBlockBytes, optimalIoBytes } = this.#geometry;
    const functions = [...BLOCK_FUNCTIONS];
    const serial = this.#serial;
    return blockProviderState.save({
      readOnly: this.readOnly,
      sizeBytes,
      physicalBlockBytes,
      optimalIoBytes,
      serial,
      functions,
    });
  }

  /**
   * The device stays what its guest knows, over whatever backend this one was opened with. A larger one is taken: the guest
   * sees the size that it saw, until `refreshGeometry`.
   *
   * @throws VmmError ERR_DISK_IMAGE for a smaller backend; ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION.
   */
  restoreState(part: SavedPart): void {
    const saved = blockProviderState.load(part);
    const { sizeBytes, physicalBlockBytes, optimalIoBytes } = saved;
    if (saved.readOnly !== this.readOnly) {
      const what = (is: boolean): string => (is ? 'read-only' : 'writable');
      throw new VmmError(
        'ERR_SNAPSHOT',
        `disk ${this.id} is ${what(this.readOnly)}; in the snapshot ${what(saved.readOnly)}`,
      );
    }
    const lost = saved.functions.filter((name) => !(BLOCK_FUNCTIONS as readonly string[]).includes(name));
    if (lost.length > 0) throw new VmmError('ERR_SNAPSHOT', `disk ${this.id} has not: ${lost.join(', ')}`);
    const has = this.#dispatcher.lane.backend.geometry.sizeBytes;
    if (has < sizeBytes) {
      const message = `disk ${this.id}: its backend has ${has} bytes, the device in the snapshot ${sizeBytes}`;
      throw new VmmError('ERR_DISK_IMAGE', message);
    }
    this.#serial = saved.serial;
    this.#geometry = { sizeBytes, blockBytes: SECTOR_BYTES, physicalBlockBytes, optimalIoBytes };
    this.#dispatcher.sizeBytes = sizeBytes;
    for (const listener of this.#listeners) listener(this.#geometry);
  }

  /** Resolves when no request that has started is in flight. A proxy's reset waits for it after it stopped asking. */
  drained(): Promise<void> {
    this.#dispatcher.lane.backend.hurry?.();
    return this.#dispatcher.gate.drained();
  }

  /**
   * Ends held and new requests with 'closed', waits for those in flight, closes the backend. One that does not answer is
   * given up (closing.ts), and closed whenever it has answered: `released`. Idempotent.
   *
   * @throws VmmError ERR_TIMEOUT when it gave up; what the backend's close throws.
   */
  close(): Promise<void> {
    this.#dispatcher.closed = true;
    this.#dispatcher.abandon();
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** After close(): resolves when nothing of this disk touches memory or image any more. */
  get released(): Promise<void> {
    return this.#released;
  }

  async #close(): Promise<void> {
    const closed = this.#turns.run(async () => {
      this.resume();
      this.#dispatcher.lane.backend.hurry?.();
      await this.#dispatcher.gate.drained();
      this.#dispatcher.lane.backend.onGeometry = undefined;
      await this.#dispatcher.lane.overlay?.close();
      await this.#dispatcher.lane.backend.close();
    });
    this.#released = closed.catch(() => undefined);
    await closeInTime(
      {
        id: this.id,
        clock: this.#clock,
        logger: this.#options.logger,
        backend: () => this.#dispatcher.lane.backend,
        giveUp: () => this.#dispatcher.giveUp(),
      },
      closed,
    );
  }

  #adopt(backend: BlockBackend): void {
    const old = this.#dispatcher.lane;
    old.backend.onGeometry = undefined;
    const { overlay } = old;
    this.#dispatcher.lane = new BlockLane(
      backend,
      overlay &&
        ((base) => {
          overlay.setBase(base);
          return overlay;
        }),
    );
    this.#rebinds++;
    this.#listen(backend);
    if (backend.geometry.sizeBytes !== this.#geometry.sizeBytes)
      this.#resized(backend.geometry, this.#dispatcher.nowNs());
  }

  #listen(backend: BlockBackend): void {
    backend.onGeometry = (geometry) => this.#resized(geometry, this.#dispatcher.nowNs());
  }

  #resized({ sizeBytes }: BlockGeometry, startNs: number): void {
    this.#dispatcher.books.book(kinds.RESIZE, false, this.#dispatcher.nowNs() - startNs);
    if (sizeBytes === this.#geometry.sizeBytes) return;
    this.#geometry = { ...this.#geometry, sizeBytes };
    this.#dispatcher.sizeBytes = sizeBytes;
    for (const listener of this.#listeners) listener(this.#geometry);
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new VmmError('ERR_CLOSED', `disk ${this.id} is closed`);
  }
}

function open(
  source: BlockSource,
  options: BlockProviderOptions,
  owner: object,
  signal: AbortSignal | undefined,
): Promise<BlockBackend> {
  const { id, engine, logger } = options;
  const readOnly = options.readOnly === true || options.copyOnWrite !== undefined;
  return openBackend(id, source, { engine, logger, readOnly, owner, signal }, !readOnly);
}

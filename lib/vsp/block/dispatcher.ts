/**
 * The hot path of a disk's provider: what happens to each request between its arrival and its end.
 *
 *   submit -> [limits] -> gate (holds during a rebind) -> check -> range lock -> lane: backend or HEL -> completed
 *
 * A read or write that the backend does itself makes no object here. It must not await, throw, or know who asks.
 */
import type { Clock } from '../../base/clock.js';
import { RateLimit, type Logger } from '../../base/logger.js';
import { requestChannel, type RequestProbe } from '../../base/probes.js';
import { alignUp } from '../../base/units.js';
import type { IoVector } from '../../memory/io-vector.js';
import { FunctionBooks } from '../function-books.js';
import type { TrafficLimits } from '../sharing/budget.js';
import { Pacer } from '../sharing/pacer.js';
import * as kinds from './call.js';
import { CallPool, nobody, type BlockCall } from './call.js';
import { BLOCK_FUNCTIONS, SECTOR_BYTES, type BlockDone, type BlockError, type BlockErrorCode } from './contract.js';
import { blockError } from './errors.js';
import { RequestGate } from './gate.js';
import { FlushBarrier } from './hel/barrier.js';
import { discardNothing } from './hel/discard.js';
import { writeZeroesByWriting } from './hel/zeroes.js';
import type { BlockLane } from './lane.js';
import { OwedFlush } from './owed-flush.js';
import { RangeLock } from './range-lock.js';

export interface DispatcherOptions {
  /** For probes. */
  readonly machine?: string | undefined;
  readonly id: string;
  readonly readOnly: boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Checked. */
  readonly limits?: TrafficLimits | undefined;
}

export class BlockDispatcher {
  readonly gate = new RequestGate<BlockCall>((call) => this.#start(call));
  /** What the backend before this one has not made durable yet. */
  readonly owed = new OwedFlush();
  readonly books = new FunctionBooks(BLOCK_FUNCTIONS);
  lane: BlockLane;
  sizeBytes: number;
  /** Requests that change data and have started, over its life. With nothing in flight: those that there were. */
  changes = 0;
  /** From now on every request that has not started ends with 'closed'. */
  closed = false;
  /** abandon() is under way. */
  #abandons = false;
  readonly #machine: string | undefined;
  readonly #id: string;
  readonly #readOnly: boolean;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** In front of the gate: a rebind does not wait for what waits here. */
  readonly #pacer: Pacer | undefined;
  readonly #calls: CallPool;
  readonly #lock = new RangeLock();
  readonly #barrier = new FlushBarrier();
  readonly #complaints: RateLimit;

  constructor(lane: BlockLane, options: DispatcherOptions) {
    this.lane = lane;
    this.sizeBytes = lane.backend.geometry.sizeBytes;
    this.#machine = options.machine;
    this.#id = options.id;
    this.#readOnly = options.readOnly;
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#pacer = options.limits && new Pacer(options.clock, options.limits);
    this.#complaints = new RateLimit(options.clock, { burst: 10, refillNs: 1_000_000_000n });
    this.#calls = new CallPool({
      // What had to wait for one that was given up is not begun any more.
      dispatch: (call) => (call.givenUp ? this.#completed(call, undefined) : this.#dispatch(call)),
      completed: (call, error) => this.#completed(call, error),
    });
  }

  nowNs(): number {
    return Number(this.#clock.nowNs());
  }

  /** Requests that wait for the limits. */
  get paced(): number {
    return this.#pacer?.waiting ?? 0;
  }

  submit(
    kind: number,
    offset: number,
    lengthBytes: number,
    data: IoVector | undefined,
    mayUnmap: boolean,
    done: BlockDone,
    isHosts = false,
  ): void {
    const call = this.#calls.take();
    call.kind = kind;
    call.offset = offset;
    call.lengthBytes = lengthBytes;
    call.data = data;
    call.mayUnmap = mayUnmap;
    call.done = done;
    call.startedNs = this.nowNs();
    call.active = true;
    // What the host wants for itself does not stand in its guest's line.
    if (this.#pacer !== undefined && !isHosts) this.#pace(this.#pacer, call);
    else if (this.gate.enter(call)) this.#start(call);
  }

  /** Whoever asked wants no answer any more: what the limits still hold is not begun, costs nothing, and ends with 'closed'. */
  abandon(): void {
    this.#abandons = true;
    for (const end of this.#pacer?.clear() ?? []) end();
    this.#abandons = false;
  }

  /**
   * The device ends: whoever asked for what is in flight is told 'closed' now. The backend goes on with it; its own end
   * is booked as ever, and the gate counts it until then. Returns how many there were.
   */
  giveUp(): number {
    const calls = this.#calls.active();
    for (const call of calls) {
      const { done } = call;
      call.done = nobody;
      call.givenUp = true;
      done(blockError('closed', `${BLOCK_FUNCTIONS[call.kind]!} at ${call.offset}: given up`));
    }
    return calls.length;
  }

  #pace(pacer: Pacer, call: BlockCall): void {
    // A discard moves nothing; zeroes may have to be written. What is refused costs the asking.
    const bytes = call.kind === kinds.DISCARD || this.#whyRefused(call) !== undefined ? 0 : call.lengthBytes;
    pacer.submit(bytes, () => {
      if (this.#abandons) {
        call.active = false;
        call.done(blockError('closed', `${BLOCK_FUNCTIONS[call.kind]!} at ${call.offset}: abandoned`));
        this.#calls.give(call);
        return;
      }
      // Its cost is the backend's, not the wait.
      call.startedNs = this.nowNs();
      if (this.gate.enter(call)) this.#start(call);
    });
  }

  #start(call: BlockCall): void {
    const error = this.#whyRefused(call);
    if (error !== undefined || (call.lengthBytes === 0 && call.kind !== kinds.FLUSH)) {
      this.#completed(call, error);
      return;
    }
    if (call.kind === kinds.FLUSH) {
      this.#dispatch(call);
      return;
    }
    call.exclusive = call.kind !== kinds.READ;
    if (call.exclusive) {
      this.changes++;
      call.ordered = true;
      call.order = this.#barrier.started();
    }
    const unit = this.lane.unitBytes;
    call.from = unit === SECTOR_BYTES ? call.offset : Math.floor(call.offset / unit) * unit;
    call.to = unit === SECTOR_BYTES ? call.offset + call.lengthBytes : alignUp(call.offset + call.lengthBytes, unit);
    call.locked = true;
    if (this.#lock.enter(call)) this.#dispatch(call);
  }

  #whyRefused(call: BlockCall): BlockError | undefined {
    const { kind, offset, lengthBytes } = call;
    let code: BlockErrorCode;
    if (this.closed) code = 'closed';
    else if (kind === kinds.FLUSH) return undefined;
    else if (this.#readOnly && kind !== kinds.READ) code = 'read-only';
    else if (
      offset >= 0 &&
      lengthBytes >= 0 &&
      offset % SECTOR_BYTES === 0 &&
      lengthBytes % SECTOR_BYTES === 0 &&
      offset + lengthBytes <= this.sizeBytes
    ) {
      return undefined;
    } else code = 'out-of-range';
    return blockError(code, `${BLOCK_FUNCTIONS[kind]!} of ${lengthBytes} bytes at ${offset}: ${code}`);
  }

  #dispatch(call: BlockCall): void {
    const lane = this.lane;
    switch (call.kind) {
      case kinds.READ:
        lane.io.read(call.offset, call.data!, call.complete);
        break;
      case kinds.WRITE:
        lane.io.write!(call.offset, call.data!, call.complete);
        break;
      case kinds.FLUSH:
        if (this.#readOnly) call.complete(undefined);
        else this.owed.settle((error) => (error ? call.complete(error) : this.#flush(call)));
        break;
      case kinds.DISCARD:
        if (lane.discards && !call.emulated) lane.io.discard!(call.offset, call.lengthBytes, call.complete);
        else discardNothing(call.complete);
        break;
      default:
        if (lane.writesZeroes(call.mayUnmap) && !call.emulated) {
          lane.io.writeZeroes!(call.offset, call.lengthBytes, call.mayUnmap, call.complete);
        } else writeZeroesByWriting(lane.io, call.offset, call.lengthBytes, call.complete);
    }
  }

  #flush(call: BlockCall): void {
    const { io } = this.lane;
    if (io.flush) io.flush(call.complete);
    else this.#barrier.wait(() => call.complete(undefined));
  }

  #completed(call: BlockCall, error: BlockError | undefined): void {
    if (!call.active) {
      this.#complain('error', 'a backend completed a request twice');
      return;
    }
    if (error !== undefined) {
      const { kind } = call;
      if (error.code === 'unsupported' && !call.emulated && (kind === kinds.DISCARD || kind === kinds.WRITE_ZEROES)) {
        call.emulated = true;
        if (kind === kinds.DISCARD) this.lane.emulateDiscards();
        else this.lane.emulateZeroes(call.mayUnmap);
        this.#dispatch(call);
        return;
      }
      this.#complain('warn', error.message, error);
    }
    call.active = false;
    const ns = this.nowNs() - call.startedNs;
    this.books.book(call.kind, error !== undefined, ns);
    if (requestChannel.hasSubscribers) requestChannel.publish(this.#probeOf(call, error, ns));
    if (error === undefined && (call.kind === kinds.READ || call.kind === kinds.WRITE)) {
      this.books.moved(call.kind, call.lengthBytes);
    }
    if (call.ordered) this.#barrier.ended(call.order);
    call.done(error);
    if (call.locked) this.#lock.leave(call);
    this.gate.leave();
    this.#calls.give(call);
  }

  #probeOf({ kind, lengthBytes, emulated }: BlockCall, error: BlockError | undefined, ns: number): RequestProbe {
    const name = BLOCK_FUNCTIONS[kind]!;
    return {
      machine: this.#machine,
      device: this.#id,
      class: 'block',
      function: name,
      bytes: lengthBytes,
      ns,
      // The serial number is asked for by nothing that comes this way.
      by: emulated ? 'emulated' : this.lane.servedBy(name, ''),
      error: error?.code,
    };
  }

  #complain(level: 'warn' | 'error', message: string, error?: BlockError): void {
    this.#complaints.run((dropped) => {
      this.#logger.log(level, `disk ${this.#id}: ${message}`, { ...(error && { error }), dropped });
    });
  }
}

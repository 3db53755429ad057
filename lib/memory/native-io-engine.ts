/**
 * The I/O engine of machines: gathers requests, hands them to the addon in batches (io_uring, or threads where the
 * kernel offers none), and calls back in batches. Data in guest memory moves without a copy in JavaScript; bytes of
 * this process, which are few, go through node:fs. It splits what is too long for one record and goes on after a
 * short read, so that a short count means the end of the file.
 */
import { read as fsRead, write as fsWrite } from 'node:fs';
import { constants } from 'node:os';
import { VmmError } from '../base/errors.js';
import { atEndOfTurn } from '../base/turn.js';
import { loadBinding, type Binding } from '../kvm/binding.js';
import { IoArea, IoOp, type NativeIoQueue } from '../kvm/native.js';
import type { AddressSpace } from './address-space.js';
import { IoBatch } from './io-batch.js';
import type { AllocateMode, IoDone, IoEngine } from './io-engine.js';
import { GuestVector, HostVector, type IoVector } from './io-vector.js';

const { EAGAIN, ECANCELED, EFAULT, EINTR } = constants.errno;

/**
 * One in so many hand-overs waits for the event loop's next turn, the others for the end of this one: cached reads
 * complete at once, and a guest that reads on and on would keep timers and doorbells from their turn.
 */
const ROUNDS_PER_TURN = 16;

export interface NativeIoEngineOptions {
  /** 'auto': io_uring, or threads where the kernel offers none. */
  readonly kind?: 'auto' | 'io_uring' | 'threads';
}

/** A request on its way; used again and again, so that the hot path makes no object here. */
class Request {
  op = 0;
  fd = 0;
  offset = 0;
  /** Of the data; or of the range that is allocated. */
  lengthBytes = 0;
  guest: GuestVector | undefined;
  host: Uint8Array | undefined;
  /** What `host` is a copy of, where it is one. */
  copyOf: IoVector | undefined;
  done: IoDone = nobody;
  /** Bytes of the data that are done. */
  moved = 0;
  /** Bytes of the data that are under way. */
  part = 0;
  result = 0;
}

const nobody: IoDone = () => {};

export class NativeIoEngine implements IoEngine {
  readonly kind: 'io_uring' | 'threads';
  /** Why 'auto' took threads; empty where it did not. */
  readonly refusal: string;
  readonly #memory: AddressSpace;
  readonly #binding: Binding;
  readonly #native: NativeIoQueue;
  readonly #batch: IoBatch;
  readonly #byTag: (Request | undefined)[] = new Array<Request | undefined>(IoArea.ENTRIES).fill(undefined);
  readonly #freeTags = Array.from({ length: IoArea.ENTRIES }, (_, index) => IoArea.ENTRIES - 1 - index);
  /** Gathered, and beyond what may be under way at once; a queue with its head at #waitingHead. */
  #waiting: Request[] = [];
  #waitingHead = 0;
  /** With a result, not yet told. */
  #finished: Request[] = [];
  readonly #free: Request[] = [];
  #inFlight = 0;
  #scheduled = false;
  #rounds = 0;
  #keepsAlive = false;
  #whenDrained: (() => void)[] = [];
  readonly #onTurnEnd = (): void => this.#turnEnds();
  #closing: Promise<void> | undefined;

  /**
   * @throws SystemError when the kind that was named can't be had; VmmError ERR_CLOSED when the memory was closed.
   */
  constructor(memory: AddressSpace, options: NativeIoEngineOptions = {}) {
    this.#memory = memory;
    this.#binding = loadBinding();
    const { addon, dispatcher } = this.#binding;
    this.#native = new addon.IoQueue(memory.native, options.kind ?? 'auto');
    this.kind = this.#native.kind;
    this.refusal = this.#native.refusal;
    this.#batch = new IoBatch(this.#native.area(), memory);
    dispatcher.register(this.#native.sourceId, this, (engine) => engine.#completed());
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  read(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#transfer(IoOp.READ, fd, offset, data, done);
  }

  write(fd: number, offset: number, data: IoVector, done: IoDone): void {
    this.#transfer(IoOp.WRITE, fd, offset, data, done);
  }

  sync(fd: number, done: IoDone): void {
    this.#begin(this.#request(IoOp.SYNC, fd, 0, 0, done));
  }

  allocate(fd: number, mode: AllocateMode, offset: number, lengthBytes: number, done: IoDone): void {
    const op = mode === 'punch-hole' ? IoOp.PUNCH_HOLE : IoOp.ZERO_RANGE;
    this.#begin(this.#request(op, fd, offset, lengthBytes, done));
  }

  flush(): void {
    this.#handOver();
    if (this.#finished.length > 0) this.#schedule();
  }

  drained(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenDrained.push(resolve));
  }

  close(): Promise<void> {
    this.#closing ??= this.drained().then(() => {
      this.#binding.dispatcher.unregister(this.#native.sourceId);
      this.#native.close();
    });
    return this.#closing;
  }

  #transfer(op: number, fd: number, offset: number, data: IoVector, done: IoDone): void {
    const next = this.#request(op, fd, offset, data.lengthBytes, done);
    if (data instanceof GuestVector && data.memory === this.#memory) {
      next.guest = data;
    } else if (data instanceof HostVector) {
      next.host = data.bytes;
    } else {
      next.host = new Uint8Array(data.lengthBytes);
      next.copyOf = data;
      if (op === IoOp.WRITE) data.copyTo(next.host);
    }
    this.#begin(next);
  }

  /** @throws RangeError for a number that can't be. */
  #request(op: number, fd: number, offset: number, lengthBytes: number, done: IoDone): Request {
    checkWhole('fd', fd, 2 ** 31 - 1);
    checkWhole('offset', offset, Number.MAX_SAFE_INTEGER);
    checkWhole('lengthBytes', lengthBytes, Number.MAX_SAFE_INTEGER);
    const next = this.#free.pop() ?? new Request();
    next.op = op;
    next.fd = fd;
    next.offset = offset;
    next.lengthBytes = lengthBytes;
    next.done = done;
    next.moved = next.part = next.result = 0;
    return next;
  }

  #begin(next: Request): void {
    this.#inFlight++;
    if (this.#closing) {
      next.result = -ECANCELED;
      this.#finished.push(next);
      this.#schedule();
    } else {
      this.#goOn(next);
    }
  }

  /** Starts a request, or its next part. */
  #goOn(next: Request): void {
    if (next.host) {
      this.#moveHostBytes(next, next.host);
    } else {
      this.#waiting.push(next);
      this.#schedule();
    }
  }

  #moveHostBytes(next: Request, bytes: Uint8Array): void {
    const { moved } = next;
    const told = (error: NodeJS.ErrnoException | null, count: number): void => {
      next.result = error ? (error.errno ?? -constants.errno.EIO) : count;
      this.#settle(next);
    };
    next.part = bytes.length - moved;
    if (next.op === IoOp.READ) fsRead(next.fd, bytes, moved, next.part, next.offset + moved, told);
    else fsWrite(next.fd, bytes, moved, next.part, next.offset + moved, told);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (++this.#rounds % ROUNDS_PER_TURN === 0) setImmediate(this.#onTurnEnd);
    else atEndOfTurn(this.#onTurnEnd);
  }

  #turnEnds(): void {
    this.#scheduled = false;
    this.#handOver();
    this.#tell();
  }

  /** The addon has completions. */
  #completed(): void {
    this.#collect(this.#native.reap());
    this.#tell();
    if (this.#hasMore()) this.#schedule();
  }

  #hasMore(): boolean {
    return this.#waitingHead < this.#waiting.length && this.#freeTags.length > 0;
  }

  /** One batch of what waits, as far as there are tags. */
  #handOver(): void {
    const batch = this.#batch;
    batch.clear();
    while (this.#hasMore()) {
      const next = this.#waiting[this.#waitingHead]!;
      if (!batch.hasRoomFor(next.guest?.gpas.length ?? 0)) break;
      this.#waitingHead++;
      this.#add(next);
    }
    if (this.#waitingHead === this.#waiting.length) {
      this.#waiting = [];
      this.#waitingHead = 0;
    }
    if (batch.length > 0) this.#collect(this.#native.submit(batch.length));
    if (this.#hasMore()) this.#schedule();
  }

  #add(next: Request): void {
    const tag = this.#freeTags.pop()!;
    try {
      if (next.guest) {
        next.part = this.#batch.addTransfer(tag, next.op, next.fd, next.offset + next.moved, next.guest, next.moved);
      } else {
        this.#batch.add(tag, next.op, next.fd, next.offset, next.lengthBytes);
      }
      this.#byTag[tag] = next;
    } catch (error) {
      this.#freeTags.push(tag);
      if (!(error instanceof VmmError)) throw error;
      next.result = -EFAULT; // the memory was closed
      next.part = 0;
      this.#finished.push(next);
    }
  }

  /** Takes completions out of the area, which the next hand-over overwrites. */
  #collect(count: number): void {
    for (let index = 0; index < count; index++) {
      const tag = this.#batch.completionTag(index);
      const done = this.#byTag[tag]!;
      this.#byTag[tag] = undefined;
      this.#freeTags.push(tag);
      done.result = this.#batch.completionResult(index);
      this.#finished.push(done);
    }
    const keepsAlive = this.#freeTags.length < IoArea.ENTRIES;
    if (keepsAlive === this.#keepsAlive) return;
    this.#keepsAlive = keepsAlive;
    if (keepsAlive) this.#binding.dispatcher.hold(this);
    else this.#binding.dispatcher.letGo(this);
  }

  #tell(): void {
    const finished = this.#finished;
    if (finished.length === 0) return;
    this.#finished = [];
    let told = 0;
    try {
      while (told < finished.length) this.#settle(finished[told++]!);
    } finally {
      // A callback that throws is a bug of ours; the others are told all the same.
      if (told < finished.length) this.#finished.push(...finished.slice(told));
      if (this.#finished.length > 0) this.#schedule();
    }
  }

  /** A part has its result: the request goes on, or is done. */
  #settle(one: Request): void {
    const { result } = one;
    if (result === -EAGAIN || result === -EINTR) {
      setImmediate(() => this.#goOn(one));
      return;
    }
    if (one.op !== IoOp.READ && one.op !== IoOp.WRITE) {
      this.#end(one, result);
      return;
    }
    if (result > 0) one.moved += result;
    const mayGoOn = result > 0 && one.moved < one.lengthBytes && (one.op === IoOp.READ || result === one.part);
    if (mayGoOn) {
      this.#goOn(one);
      return;
    }
    if (one.op === IoOp.READ) {
      // Also of a part that failed, which may have written something.
      one.guest?.slice(0, one.moved + (result < 0 ? one.part : 0)).markDirty();
      if (one.moved > 0) one.copyOf?.copyFrom(one.host!.subarray(0, one.moved));
    }
    this.#end(one, one.moved > 0 ? one.moved : result);
  }

  #end(one: Request, result: number): void {
    this.#inFlight--;
    const { done } = one;
    one.done = nobody;
    one.guest = one.host = one.copyOf = undefined;
    this.#free.push(one);
    try {
      done(result);
    } finally {
      if (this.#inFlight === 0 && this.#whenDrained.length > 0) {
        for (const resolve of this.#whenDrained.splice(0)) resolve();
      }
    }
  }
}

function checkWhole(name: string, value: number, maximum: number): void {
  if (Number.isSafeInteger(value) && value >= 0 && value <= maximum) return;
  throw new RangeError(`${name}: ${value} is not a whole number from 0 to ${maximum}`);
}

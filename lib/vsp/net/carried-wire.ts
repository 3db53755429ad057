/**
 * The inner end of a carried network (carried.ts): two byte streams, and the backends that have them one after the other. What comes over
 * the streams is that one's which started last, from the other end's hello for it on.
 */
import { AbortError, VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import { type CarriedCounts, CarriedDecoder, type CarriedRecord, encodeFrames, framesOf } from './carried-frames.js';
import type { CarriedStreams } from './carry-network.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { MAX_MTU_BYTES, MIN_MTU_BYTES } from './fits.js';

/** A network that the other end has opened, and may change over to. */
export interface CarriedSuccessor {
  /** The number of the change, from 1 to 65535: what comes over the streams is the new network's from the hello with it on. */
  readonly change: number;
  readonly mtuBytes: number;
  /** What it is there. */
  readonly around: BackendDescription | undefined;
  /** The device stands on it from now on: the other end is to change over. Settles when that has. Called at most once. */
  take(): Promise<void>;
  /** It is not wanted after all: the other end is to close it. */
  drop(): void;
}

type Hello = CarriedRecord & { readonly type: 'hello' };

/** The streams, and whose they are at the moment. */
export class CarriedWire {
  readonly streams: CarriedStreams;
  readonly counts: CarriedCounts = { lost: 0, badFrames: 0 };
  #current: CarriedBackend | undefined;
  #hello: Hello | undefined;
  /** Of the change whose hello has not come yet: what comes before it is another network's. */
  #awaited: number | undefined;
  /** As the other end has said of the network that it stands on. */
  #linkUp = true;
  #isOver = false;

  constructor(streams: CarriedStreams) {
    this.streams = streams;
  }

  get isOpen(): boolean {
    return this.#hello !== undefined && !this.#isOver;
  }

  get linkUp(): boolean {
    return this.#linkUp && !this.#isOver;
  }

  /** Waits for what the other end says of its backend. */
  open(signal: AbortSignal | undefined): Promise<NetBackend> {
    const { input, output } = this.streams;
    const decoder = new CarriedDecoder(this.counts);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(new AbortError(signal));
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
      const onGone = (): void => {
        signal?.removeEventListener('abort', onAbort);
        reject(gone());
        this.#isOver = true;
        this.#current?.setLink(false);
      };
      for (const stream of [input, output]) stream.on('error', onGone);
      input.on('close', onGone);
      input.on('end', onGone);
      input.on('data', (chunk: Uint8Array) => {
        const records = decoder.push(chunk);
        if (records === undefined) return void input.destroy();
        if (this.#hello !== undefined) return this.#take(records);
        const [first, ...rest] = records;
        if (first === undefined) return;
        if (first.type !== 'hello') return void input.destroy();
        signal?.removeEventListener('abort', onAbort);
        const wrong = mtuMistake(first.mtuBytes);
        if (wrong !== undefined) {
          reject(wrong);
          return void input.destroy();
        }
        this.#hello = first;
        this.#current = new CarriedBackend(this, first, { mtuBytes: first.mtuBytes, around: first.backend });
        this.#take(rest);
        resolve(this.#current);
      });
    });
  }

  successor(next: CarriedSuccessor): NetBackend {
    const wrong = mtuMistake(next.mtuBytes);
    if (wrong !== undefined) throw wrong;
    return new CarriedBackend(this, this.#hello!, next);
  }

  /** The streams are this one's from now on, and the other end changes over. */
  become(backend: CarriedBackend, next: CarriedSuccessor): void {
    const before = this.#current;
    this.#current = backend;
    this.#awaited = next.change;
    // The one before may have held the other end up.
    this.streams.input.resume();
    const changed = next.take();
    // Then the other end is on the network before: better on none, with the link down, than there unknown.
    changed.catch(() => backend.lose());
    before?.leave(changed);
  }

  isCurrent(backend: CarriedBackend): boolean {
    return backend === this.#current;
  }

  end(): void {
    this.#isOver = true;
    this.streams.input.destroy();
    this.streams.output.end();
  }

  #take(records: readonly CarriedRecord[]): void {
    const from = this.#awaited === undefined ? 0 : records.findIndex((record) => this.#isAwaited(record));
    if (from < 0) return;
    this.#awaited = undefined;
    const mine = records.slice(from);
    for (const record of mine) if (record.type === 'link') this.#linkUp = record.up;
    this.#current?.take(mine);
  }

  #isAwaited(record: CarriedRecord): boolean {
    return record.type === 'hello' && record.change === this.#awaited;
  }
}

class CarriedBackend implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  readonly #wire: CarriedWire;
  readonly #around: BackendDescription | undefined;
  /** Missing for the first one. */
  readonly #next: CarriedSuccessor | undefined;
  #host: NetHostEnd | undefined;
  /** What came before start(). */
  #early: CarriedRecord[] = [];
  #isFull = false;
  #isClosed = false;
  #isLost = false;
  /** Another one has the streams: how the other end changes over to it. */
  #left: Promise<void> | undefined;

  constructor(
    wire: CarriedWire,
    { takes, gives }: Hello,
    is: CarriedSuccessor | Pick<CarriedSuccessor, 'mtuBytes' | 'around'>,
  ) {
    this.#wire = wire;
    this.#around = is.around;
    this.#next = 'change' in is ? is : undefined;
    this.takes = takes;
    this.gives = gives;
    this.mtuBytes = is.mtuBytes;
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    if (this.#next === undefined) return this.take(this.#early.splice(0));
    // Until the new network says something of its link, the guest's stays as it is.
    if (!this.#wire.linkUp) host.link(false);
    this.#wire.become(this, this.#next);
  }

  send(frames: readonly NetFrame[]): boolean {
    const { output } = this.#wire.streams;
    if (this.#isLost || !this.#wire.isCurrent(this)) return true;
    if (output.destroyed || output.write(encodeFrames(frames, this.#wire.counts))) return true;
    if (!this.#isFull) {
      this.#isFull = true;
      output.once('drain', () => {
        this.#isFull = false;
        if (!this.#isClosed) this.#host?.writable();
      });
    }
    return false;
  }

  setPaused(paused: boolean): void {
    if (!this.#wire.isCurrent(this)) return;
    if (paused) this.#wire.streams.input.pause();
    else this.#wire.streams.input.resume();
  }

  setLink(up: boolean): void {
    if (!this.#isClosed) this.#host?.link(up);
  }

  describe(): BackendDescription {
    return { kind: 'carried', ...this.#wire.counts, ...(this.#around && { around: this.#around }) };
  }

  close(): Promise<void> {
    const isFirst = !this.#isClosed;
    this.#isClosed = true;
    if (this.#left !== undefined) return this.#left;
    if (this.#wire.isCurrent(this)) this.#wire.end();
    else if (isFirst) this.#next?.drop();
    return Promise.resolve();
  }

  /** Of the wire: the other end has not changed over to it. Until another one comes, nothing goes either way. */
  lose(): void {
    if (this.#isClosed || !this.#wire.isCurrent(this)) return;
    this.#isLost = true;
    this.setLink(false);
  }

  /** Of the wire: its successor has started. */
  leave(changed: Promise<void>): void {
    this.#left = changed;
    // Heard by whoever closes it, if anybody.
    changed.catch(() => undefined);
  }

  /** Of the wire: what has come for it. */
  take(records: readonly CarriedRecord[]): void {
    if (this.#isClosed) return;
    if (this.#host === undefined) return void this.#early.push(...records);
    const frames = framesOf(records);
    if (frames.length > 0) this.#host.receive(frames);
    for (const record of records) if (record.type === 'link') this.setLink(record.up);
  }
}

export function gone(): VmmError {
  return new VmmError('ERR_DEVICE', 'the network at the other end of a stream has gone');
}

function mtuMistake(mtuBytes: number): VmmError | undefined {
  if (mtuBytes >= MIN_MTU_BYTES && mtuBytes <= MAX_MTU_BYTES) return undefined;
  return new VmmError('ERR_DEVICE', `the network at the other end of a stream has an MTU of ${mtuBytes} bytes`);
}

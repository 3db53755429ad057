/**
 * HAL: a network whose backend is in another process, at the other end of two byte streams: carryNetwork() stands beside
 * the backend, carriedNetwork() is what the machine has. What the backend lacks is done beside it, so that few and large
 * packets go over the streams, and all that is to be done to them on the faster side: the machine's may be emulated. The
 * streams hold up whoever sends too much; a backend that can't be held up loses frames, as ever.
 *
 *     machine -> carriedNetwork() -> output ~~> input  -> carryNetwork() -> backend
 *     machine <- carriedNetwork() <- input  <~~ output <- carryNetwork() <- backend
 */
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { RateLimit, type Logger } from '../../base/logger.js';
import type { BackendDescription } from '../contract.js';
import { adapt, type AdaptCounts, checkedFrame, mergedFrames } from './adapt.js';
import {
  type CarriedCounts,
  CarriedDecoder,
  type CarriedRecord,
  encodeFrames,
  encodeHello,
  encodeLink,
} from './carried-frames.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { fits, MAX_MTU_BYTES, MIN_MTU_BYTES } from './fits.js';
import type { NetSource } from './source.js';

export interface CarriedStreams {
  readonly input: Readable;
  readonly output: Writable;
}

/** Who is told of frames that are left out. */
export interface CarryLog {
  /** The device's. */
  readonly id: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Joins an open backend to whoever is at the other end. The streams' end leaves the backend open; it is the caller's.
 * Frames that are left out are logged at a bounded rate, and counted in what is given back.
 */
export function carryNetwork(
  backend: NetBackend,
  { input, output }: CarriedStreams,
  { id, clock, logger }: CarryLog,
): Readonly<CarriedCounts> {
  const counts: CarriedCounts = { lost: 0, badFrames: 0 };
  const decoder = new CarriedDecoder(counts);
  const complaints = new RateLimit(clock, { burst: 5, refillNs: 1_000_000_000n });
  const counting = <T>(work: () => T): T => {
    const before = counts.lost + counts.badFrames;
    const result = work();
    if (counts.lost + counts.badFrames > before) {
      complaints.run(() => logger.log('warn', `network ${id}: carried frames are left out`, { ...counts }));
    }
    return result;
  };
  const write = (bytes: Uint8Array): boolean => output.destroyed || output.write(bytes);
  let isFull = false;
  // Streams that break are the session's end, which is told elsewhere.
  for (const stream of [input, output]) stream.on('error', () => undefined);
  write(encodeHello({ ...WHOLE, mtuBytes: backend.mtuBytes, backend: backend.describe() }));
  backend.start({
    receive: (frames) => {
      // What a backend gives though it was asked to wait.
      if (isFull || write(counting(() => encodeFrames(improved(frames, backend.gives), counts)))) return;
      isFull = true;
      backend.setPaused(true);
      output.once('drain', () => {
        isFull = false;
        backend.setPaused(false);
      });
    },
    writable: () => void input.resume(),
    link: (up) => void write(encodeLink(up)),
  });
  input.on('data', (chunk: Uint8Array) => {
    const frames = counting(() => {
      const records = decoder.push(chunk);
      return records && adapted(framesOf(records), backend, counts);
    });
    if (frames === undefined) return void input.destroy();
    if (frames.length > 0 && !backend.send(frames)) input.pause();
  });
  return counts;
}

/** As a backend takes them. What is nothing to it, or too long for it, was none. */
function adapted(frames: readonly NetFrame[], backend: NetBackend, counts: CarriedCounts): NetFrame[] {
  const out: NetFrame[] = [];
  const done: AdaptCounts = { checksums: 0, segmented: 0, dropped: 0 };
  for (const frame of frames) {
    if (fits(frame, backend.mtuBytes)) adapt(frame, backend.takes, true, out, done);
    else done.dropped++;
  }
  counts.badFrames += done.dropped;
  return out;
}

/** What the other end gets, over every backend. */
const WHOLE = { takes: { checksum: true, segments: true }, gives: { checked: true, merged: true } };

function improved(frames: readonly NetFrame[], { merged, checked }: NetBackend['gives']): readonly NetFrame[] {
  const packets = merged ? frames : mergedFrames(frames);
  return checked ? packets : packets.map(checkedFrame);
}

/** The network at the other end of the streams; it can be opened once. */
export function carriedNetwork(streams: CarriedStreams): NetSource {
  let wasOpened = false;
  return {
    class: 'network',
    describe: () => ({ kind: 'carried' }),
    open: async ({ signal }) => {
      if (wasOpened) throw new VmmError('ERR_STATE', 'a carried network can be opened once');
      wasOpened = true;
      return CarriedBackend.open(streams, signal);
    },
  };
}

class CarriedBackend implements NetBackend {
  readonly takes: NetBackend['takes'];
  readonly gives: NetBackend['gives'];
  readonly mtuBytes: number;
  readonly #streams: CarriedStreams;
  readonly #counts: CarriedCounts;
  readonly #around: BackendDescription | undefined;
  #host: NetHostEnd | undefined;
  /** What came before start(). */
  #early: CarriedRecord[] = [];
  #isFull = false;
  #isClosed = false;

  private constructor(streams: CarriedStreams, hello: CarriedRecord & { type: 'hello' }, counts: CarriedCounts) {
    this.#streams = streams;
    this.#counts = counts;
    this.#around = hello.backend;
    this.takes = hello.takes;
    this.gives = hello.gives;
    this.mtuBytes = hello.mtuBytes;
  }

  /** Waits for what the other end says of its backend. */
  static open(streams: CarriedStreams, signal: AbortSignal | undefined): Promise<CarriedBackend> {
    const { input, output } = streams;
    const counts: CarriedCounts = { lost: 0, badFrames: 0 };
    const decoder = new CarriedDecoder(counts);
    return new Promise((resolve, reject) => {
      let backend: CarriedBackend | undefined;
      const onAbort = (): void => reject(new AbortError(signal));
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
      const onGone = (): void => {
        signal?.removeEventListener('abort', onAbort);
        reject(new VmmError('ERR_DEVICE', 'the network at the other end of a stream has gone'));
        backend?.setLink(false);
      };
      for (const stream of [input, output]) stream.on('error', onGone);
      input.on('close', onGone);
      input.on('end', onGone);
      input.on('data', (chunk: Uint8Array) => {
        const records = decoder.push(chunk);
        if (records === undefined) return void input.destroy();
        if (backend !== undefined) return backend.#take(records);
        const [first, ...rest] = records;
        if (first === undefined) return;
        if (first.type !== 'hello') return void input.destroy();
        signal?.removeEventListener('abort', onAbort);
        if (first.mtuBytes < MIN_MTU_BYTES || first.mtuBytes > MAX_MTU_BYTES) {
          const message = `the network at the other end of a stream has an MTU of ${first.mtuBytes} bytes`;
          reject(new VmmError('ERR_DEVICE', message));
          return void input.destroy();
        }
        backend = new CarriedBackend(streams, first, counts);
        backend.#take(rest);
        resolve(backend);
      });
    });
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    this.#take(this.#early.splice(0));
  }

  send(frames: readonly NetFrame[]): boolean {
    const { output } = this.#streams;
    if (output.destroyed || output.write(encodeFrames(frames, this.#counts))) return true;
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
    if (paused) this.#streams.input.pause();
    else this.#streams.input.resume();
  }

  setLink(up: boolean): void {
    if (!this.#isClosed) this.#host?.link(up);
  }

  describe(): BackendDescription {
    return { kind: 'carried', ...this.#counts, ...(this.#around && { around: this.#around }) };
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#streams.input.destroy();
    this.#streams.output.end();
    return Promise.resolve();
  }

  #take(records: readonly CarriedRecord[]): void {
    if (this.#isClosed) return;
    if (this.#host === undefined) return void this.#early.push(...records);
    const frames = framesOf(records);
    if (frames.length > 0) this.#host.receive(frames);
    for (const record of records) if (record.type === 'link') this.setLink(record.up);
  }
}

function framesOf(records: readonly CarriedRecord[]): NetFrame[] {
  return records.flatMap((record) => (record.type === 'frame' ? [record.frame] : []));
}

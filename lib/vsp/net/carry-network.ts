/**
 * The outer end of a carried network (carried.ts): a relay between a backend of this process and whoever is at the other end of
 * two byte streams. What the backend lacks is done here, so that few and large packets go over the streams. The backend can be exchanged
 * while frames pass: what comes later is the new one's, and the other end is told in the stream where that begins.
 */
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../../base/clock.js';
import { RateLimit, type Logger } from '../../base/logger.js';
import { adapt, type AdaptCounts, checkedFrame, mergedFrames } from './adapt.js';
import {
  type CarriedCounts,
  CarriedDecoder,
  encodeFrames,
  encodeHello,
  encodeLink,
  framesOf,
} from './carried-frames.js';
import type { NetBackend, NetFrame } from './contract.js';
import { fits } from './fits.js';
import { startBackend } from './start-backend.js';

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

export interface CarriedRelay {
  /** Frames that were left out. */
  readonly counts: Readonly<CarriedCounts>;
  /**
   * Another open backend in the place of the one that it has. From the call on nothing passes to or from the old one, which
   * stays open and is the caller's to close. Frames that wait in the streams for the backend go to the new one.
   * `change`: from 1 to 65535, by which the other end knows the new one's frames.
   */
  exchange(backend: NetBackend, change: number): void;
}

/**
 * Joins an open backend to whoever is at the other end. The streams' end leaves the backend open; it is the caller's.
 * Frames that are left out are logged at a bounded rate, and counted.
 */
export function carryNetwork(backend: NetBackend, streams: CarriedStreams, log: CarryLog): CarriedRelay {
  return new Relay(backend, streams, log);
}

/** What the other end gets, over every backend. */
const WHOLE = { takes: { checksum: true, segments: true }, gives: { checked: true, merged: true } };

function helloOf(backend: NetBackend, change: number): Uint8Array {
  return encodeHello({ ...WHOLE, mtuBytes: backend.mtuBytes, backend: backend.describe() }, change);
}

class Relay implements CarriedRelay {
  readonly counts: CarriedCounts = { lost: 0, badFrames: 0 };
  readonly #streams: CarriedStreams;
  readonly #log: CarryLog;
  readonly #complaints: RateLimit;
  #backend: NetBackend;
  /** The other end takes no more at the moment, so the backend waits. */
  #isFull = false;

  constructor(backend: NetBackend, streams: CarriedStreams, log: CarryLog) {
    this.#streams = streams;
    this.#log = log;
    this.#complaints = new RateLimit(log.clock, { burst: 5, refillNs: 1_000_000_000n });
    this.#backend = backend;
    const { input, output } = streams;
    // Streams that break are the session's end, which is told elsewhere.
    for (const stream of [input, output]) stream.on('error', () => undefined);
    this.#begin(backend, helloOf(backend, 0));
    const decoder = new CarriedDecoder(this.counts);
    input.on('data', (chunk: Uint8Array) => {
      const frames = this.#counting(() => {
        const records = decoder.push(chunk);
        return records && adapted(framesOf(records), this.#backend, this.counts);
      });
      if (frames === undefined) return void input.destroy();
      if (frames.length > 0 && !this.#backend.send(frames)) input.pause();
    });
  }

  exchange(backend: NetBackend, change: number): void {
    const hello = helloOf(backend, change);
    this.#backend = backend;
    this.#begin(backend, hello);
    if (this.#isFull) backend.setPaused(true);
    // Whatever held the other end up is gone.
    this.#streams.input.resume();
  }

  #begin(backend: NetBackend, hello: Uint8Array): void {
    this.#write(hello);
    const host = {
      receive: (frames: readonly NetFrame[]) => this.#receive(frames),
      writable: () => void this.#streams.input.resume(),
      link: (up: boolean) => this.#write(encodeLink(up)),
    };
    const isUp = startBackend(backend, host, () => backend === this.#backend);
    // Said in any case: what the one before said of its link goes with it.
    this.#write(encodeLink(isUp));
  }

  #receive(frames: readonly NetFrame[]): void {
    // What a backend gives though it was asked to wait.
    if (this.#isFull) return;
    const bytes = this.#counting(() => encodeFrames(improved(frames, this.#backend.gives), this.counts));
    if (this.#write(bytes)) return;
    this.#isFull = true;
    this.#backend.setPaused(true);
    this.#streams.output.once('drain', () => {
      this.#isFull = false;
      this.#backend.setPaused(false);
    });
  }

  #write(bytes: Uint8Array): boolean {
    const { output } = this.#streams;
    return output.destroyed || output.write(bytes);
  }

  #counting<T>(work: () => T): T {
    const { counts } = this;
    const { id, logger } = this.#log;
    const before = counts.lost + counts.badFrames;
    const result = work();
    if (counts.lost + counts.badFrames > before) {
      this.#complaints.run(() => logger.log('warn', `network ${id}: carried frames are left out`, { ...counts }));
    }
    return result;
  }
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

function improved(frames: readonly NetFrame[], { merged, checked }: NetBackend['gives']): readonly NetFrame[] {
  const packets = merged ? frames : mergedFrames(frames);
  return checked ? packets : packets.map(checkedFrame);
}

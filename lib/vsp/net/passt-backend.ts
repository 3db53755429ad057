/**
 * HAL: frames to a passt process and from it, and its being started again when it has died: the link is down then, and up
 * once the next one answers.
 *
 *   up --ended, or sent what is no frame--> down --wait 0.1 s, twice as long each time, at most 10 s--> asked
 *   asked --answers--> up          asked --ended, or silent--> down          any --close()--> closed
 *
 * passt takes a large TCP packet whole: it reads payload, whatever the MTU. What it takes no more of for the moment waits
 * here, bounded; the guest is held, and what comes all the same is dropped.
 */
import type { Clock, Timer } from '../../base/clock.js';
import type { Logger } from '../../base/logger.js';
import { KiB, MiB } from '../../base/units.js';
import type { BackendDescription } from '../contract.js';
import { adapt, type AdaptCounts } from './adapt.js';
import { finishChecksum } from './checksum.js';
import type { NetBackend, NetFrame, NetHostEnd } from './contract.js';
import { PacketNumbers } from './numbered.js';
import { answered, PASST_FRAMES, type PasstProcess } from './passt-process.js';
import { framed, type FrameReader } from './stream-frames.js';

export interface PasstBackendOptions {
  readonly id: string;
  readonly mac: number;
  readonly mtuBytes: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** For the description, from which a snapshot's clone gets a network with the same bounds. */
  readonly forwards: string;
  readonly hostLoopback: boolean;
  /** Starts another. */
  start(): PasstProcess;
}

const HELD_BYTES = 256 * KiB;
const MAX_BEHIND_BYTES = 2 * MiB;
const FIRST_WAIT_NS = 100_000_000n;
const LONGEST_WAIT_NS = 10_000_000_000n;
/** One that ran so long has not died of how it was started. */
const GOOD_RUN_NS = 30_000_000_000n;

export class PasstBackend implements NetBackend {
  readonly takes = { checksum: false, segments: true };
  /** It has made the packets itself, and by way of a socket no bit is lost. */
  readonly gives = { checked: true, merged: false };
  readonly mtuBytes: number;
  readonly #options: PasstBackendOptions;
  readonly #abort = new AbortController();
  readonly #numbers = new PacketNumbers();
  #host: NetHostEnd | undefined;
  #passt: PasstProcess | undefined;
  #isPaused = false;
  #sinceNs = 0n;
  #waitNs = FIRST_WAIT_NS;
  #timer: Timer | undefined;
  #starting: Promise<void> | undefined;
  #closed: Promise<void> | undefined;
  #lost = 0;
  #badFrames = 0;
  #restarts = 0;
  #failure: string | undefined;

  /** Goes on with a passt that has answered. */
  constructor(passt: PasstProcess, reader: FrameReader, options: PasstBackendOptions) {
    this.mtuBytes = options.mtuBytes;
    this.#options = options;
    this.#take(passt, reader);
  }

  start(host: NetHostEnd): void {
    this.#host = host;
    if (this.#passt === undefined) host.link(false);
    else this.#flow(this.#passt);
  }

  send(frames: readonly NetFrame[]): boolean {
    const stream = this.#passt?.stream;
    if (stream === undefined || stream.writableLength > MAX_BEHIND_BYTES) {
      this.#lost += frames.length;
      return true;
    }
    const whole = frames.flatMap((frame) => this.#fitting(frame));
    if (whole.length === 0) return true;
    const lengths = whole.map(({ bytes }) => bytes.length);
    const bytes = framed(lengths, (index, all, at) => {
      const frame = whole[index]!;
      all.set(frame.bytes, at);
      const { unfinished } = frame;
      if (unfinished === undefined) return;
      finishChecksum(all.subarray(at, at + frame.bytes.length), unfinished.startAt, unfinished.offset);
    });
    // With a false of write() a 'drain' follows.
    return stream.write(bytes) || stream.writableLength < HELD_BYTES;
  }

  setPaused(paused: boolean): void {
    this.#isPaused = paused;
    if (this.#passt !== undefined) this.#flow(this.#passt);
  }

  describe(): BackendDescription {
    const { forwards, hostLoopback, mtuBytes } = this.#options;
    const counts = { lost: this.#lost, badFrames: this.#badFrames, restarts: this.#restarts };
    const pid = this.#passt?.pid;
    const fixed = { forwards, hostLoopback, mtuBytes };
    return { kind: 'passt', ...fixed, pid, up: this.#passt !== undefined, ...counts, failure: this.#failure };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#host = undefined;
    this.#timer?.cancel();
    this.#abort.abort();
    const passt = this.#passt;
    this.#passt = undefined;
    passt?.keepAlive(true);
    passt?.kill();
    await Promise.all([passt?.ended, this.#starting]);
  }

  /** As passt takes it: a large packet whole, where it is not longer than what it reads at once. */
  #fitting(frame: NetFrame): readonly NetFrame[] {
    if (frame.bytes.length <= PASST_FRAMES.maxBytes) return [frame];
    const cut: NetFrame[] = [];
    const counts: AdaptCounts = { checksums: 0, segmented: 0, dropped: 0 };
    adapt(frame, { checksum: false, segments: false }, false, cut, counts);
    const fitting = cut.filter(({ bytes }) => bytes.length <= PASST_FRAMES.maxBytes);
    this.#lost += counts.dropped + cut.length - fitting.length;
    return fitting;
  }

  #take(passt: PasstProcess, reader: FrameReader): void {
    this.#passt = passt;
    // A machine that runs keeps this process alive; its network alone does not.
    passt.keepAlive(false);
    this.#sinceNs = this.#options.clock.nowNs();
    const { stream } = passt;
    stream.on('data', (chunk: Uint8Array) => {
      const frames = reader.push(chunk);
      for (const frame of frames) this.#numbers.number(frame);
      if (frames.length > 0) this.#host?.receive(frames.map((bytes) => ({ bytes, checked: true })));
      if (reader.broken === undefined) return;
      this.#badFrames++;
      this.#gone(passt, reader.broken);
    });
    // Listening has set it flowing.
    stream.pause();
    stream.on('drain', () => {
      if (passt === this.#passt) this.#host?.writable();
    });
    void passt.ended.then((words) => this.#gone(passt, words));
  }

  #flow({ stream }: PasstProcess): void {
    if (this.#isPaused || this.#host === undefined) stream.pause();
    else stream.resume();
  }

  #gone(passt: PasstProcess, words: string): void {
    if (passt !== this.#passt) return;
    this.#passt = undefined;
    passt.kill();
    this.#host?.link(false);
    // Whatever made the guest wait is gone.
    this.#host?.writable();
    if (this.#options.clock.nowNs() - this.#sinceNs >= GOOD_RUN_NS) this.#waitNs = FIRST_WAIT_NS;
    this.#wait(words);
  }

  #wait(words: string): void {
    const { logger, id, clock } = this.#options;
    this.#failure = words;
    logger.log('warn', `network ${id}: passt is gone: ${words}; starting it again`, {
      waitMs: Number(this.#waitNs / 1_000_000n),
    });
    this.#timer = clock.setTimer(this.#waitNs, () => {
      this.#starting = this.#startAgain();
    });
    this.#waitNs = this.#waitNs * 2n < LONGEST_WAIT_NS ? this.#waitNs * 2n : LONGEST_WAIT_NS;
  }

  async #startAgain(): Promise<void> {
    const { mac, clock } = this.#options;
    const { signal } = this.#abort;
    let passt: PasstProcess | undefined;
    let reader: FrameReader;
    try {
      passt = this.#options.start();
      reader = await answered(passt, { mac, clock, signal });
    } catch (error) {
      // Whatever it is: nobody waits for this who could catch it.
      await passt?.ended;
      if (!signal.aborted) this.#wait(error instanceof Error ? error.message : String(error));
      return;
    }
    if (signal.aborted) {
      passt.kill();
      await passt.ended;
      return;
    }
    this.#restarts++;
    this.#failure = undefined;
    this.#take(passt, reader);
    this.#flow(passt);
    this.#host?.link(true);
  }
}

/**
 * What feeds a UART's receiver FIFO from the host: an unbounded queue with a high-water mark, and the pace.
 * serial-16550.ts asks it for bytes whenever its FIFO has room; it must not be asked while the guest does not listen.
 *
 * The pace: Linux empties the receiver inside the interrupt, into a buffer of 64 KiB that another task empties, and
 * loses what does not fit. So after a burst the receiver stays silent for a quarter of the time that the guest took to
 * empty the burst, whatever its speed. To that other task a byte is a small part of the two port accesses that it was to
 * the interrupt. A guest that polls takes each byte itself and needs no pause.
 */
import type { Clock, Timer } from '../base/clock.js';
import { ByteQueue } from './byte-queue.js';

/** Bytes fed without a pause, 64 FIFOs full: a sixty-fourth of that buffer. */
const BURST_BYTES = 1024;
const MIN_PAUSE_NS = 50_000n;
const MAX_PAUSE_NS = 50_000_000n;

/** What waits, and the pace, with times that count from the saving. */
export interface ReceiverState {
  readonly waiting: Uint8Array;
  readonly burstLeft: number;
  readonly burstAgeNs: bigint;
  /** What is left of a pause. */
  readonly pauseNs?: bigint | undefined;
}

export class UartReceiver {
  /** Called when at most half the high-water mark waits again, after a `push` that answered false. */
  onDrain: (() => void) | undefined;

  readonly #clock: Clock;
  readonly #highWaterBytes: number;
  readonly #onReady: () => void;
  readonly #queue = new ByteQueue();
  #wantsDrain = false;
  #burstLeft = BURST_BYTES;
  #burstStartNs = 0n;
  #pause: Timer | undefined;
  #pauseEndNs = 0n;

  /** `onReady` is called when a pause ends with bytes waiting. */
  constructor(clock: Clock, highWaterBytes: number, onReady: () => void) {
    this.#clock = clock;
    this.#highWaterBytes = highWaterBytes;
    this.#onReady = onReady;
  }

  get length(): number {
    return this.#queue.length;
  }

  /** Queues a copy; false from the high-water mark on. */
  push(bytes: Uint8Array): boolean {
    this.#queue.push(bytes);
    if (this.#queue.length < this.#highWaterBytes) return true;
    this.#wantsDrain = true;
    return false;
  }

  /**
   * The next byte for the FIFO, or -1: none waits, or the guest is given a pause. `fifoIsEmpty` says that a burst is
   * over.
   */
  next(fifoIsEmpty: boolean, paced: boolean): number {
    if (this.#queue.length === 0) return -1;
    if (paced && !this.#mayFeed(fifoIsEmpty)) return -1;
    const byte = this.#queue.shift();
    if (this.#wantsDrain && this.#queue.length <= this.#highWaterBytes / 2) {
      this.#wantsDrain = false;
      this.onDrain?.();
    }
    return byte;
  }

  saveState(): ReceiverState {
    const nowNs = this.#clock.nowNs();
    const leftNs = this.#pauseEndNs > nowNs ? this.#pauseEndNs - nowNs : 0n;
    return {
      waiting: this.#queue.copy(),
      burstLeft: this.#burstLeft,
      burstAgeNs: this.#burstLeft === BURST_BYTES ? 0n : nowNs - this.#burstStartNs,
      pauseNs: this.#pause === undefined ? undefined : leftNs,
    };
  }

  restoreState({ waiting, burstLeft, burstAgeNs, pauseNs }: ReceiverState): void {
    this.#queue.clear();
    this.push(waiting);
    this.#burstLeft = Math.min(burstLeft, BURST_BYTES);
    this.#burstStartNs = this.#clock.nowNs() - burstAgeNs;
    this.#pause?.cancel();
    this.#pause = undefined;
    if (pauseNs !== undefined) this.#pauseFor(pauseNs < MAX_PAUSE_NS ? pauseNs : MAX_PAUSE_NS);
  }

  #mayFeed(fifoIsEmpty: boolean): boolean {
    if (this.#pause !== undefined) return false;
    if (this.#burstLeft === 0) {
      if (fifoIsEmpty) this.#startPause();
      return false;
    }
    if (this.#burstLeft === BURST_BYTES) this.#burstStartNs = this.#clock.nowNs();
    this.#burstLeft--;
    return true;
  }

  #startPause(): void {
    const fairNs = (this.#clock.nowNs() - this.#burstStartNs) / 4n;
    const pauseNs = fairNs < MIN_PAUSE_NS ? MIN_PAUSE_NS : fairNs > MAX_PAUSE_NS ? MAX_PAUSE_NS : fairNs;
    this.#pauseFor(pauseNs);
  }

  #pauseFor(pauseNs: bigint): void {
    this.#pauseEndNs = this.#clock.nowNs() + pauseNs;
    this.#pause = this.#clock.setTimer(pauseNs, () => {
      this.#pause = undefined;
      this.#burstLeft = BURST_BYTES;
      this.#onReady();
    });
  }
}

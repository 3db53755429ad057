/**
 * The rate limit of frames in one direction: what the budget does not allow yet waits, copied and in order, and goes on in batches; what
 * comes beyond the bound is dropped and counted, as networks do. Time by an injected clock; nothing runs while nothing waits. The
 * budget is its maker's, so that it outlives the line: a device that moves to another network has not saved up anything.
 */
import type { Clock, Timer } from '../../base/clock.js';
import type { Budget } from '../sharing/budget.js';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';

export interface FrameLineOptions {
  readonly clock: Clock;
  readonly budget: Budget;
  /** Of frames that wait. One more batch comes on top: whoever gives them is told only afterwards. */
  readonly maxBytes: number;
  /** Frames whose time has come, in order. False: no more until open() is called. */
  give(frames: readonly NetFrame[]): boolean;
  /** Nothing waits any more, and more is taken. */
  emptied(): void;
}

/** The least time between two looks at the budget, so that frames go in batches: 1 ms. */
const LEAST_WAIT_NS = 1_000_000;

export class FrameLine {
  readonly #options: FrameLineOptions;
  #frames: NetFrame[] = [];
  #bytes = 0;
  #isOpen = true;
  #isGiving = false;
  #timer: Timer | undefined;
  #dropped = 0;

  constructor(options: FrameLineOptions) {
    this.#options = options;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#frames.length;
  }

  get waitingBytes(): number {
    return this.#bytes;
  }

  /** Nothing waits, and whoever is given frames takes more. */
  get isFree(): boolean {
    return this.#isOpen && this.#frames.length === 0;
  }

  get dropped(): number {
    return this.#dropped;
  }

  push(frames: readonly NetFrame[]): void {
    const now = this.#canGive ? this.#allowed(frames) : 0;
    // While give() is under way, what it brings in comes behind it.
    for (const frame of frames.slice(now)) {
      if (this.#bytes >= this.#options.maxBytes) this.#dropped++;
      else {
        this.#frames.push(keptFrame(frame));
        this.#bytes += frame.bytes.length;
      }
    }
    if (now > 0) this.#give(now === frames.length ? frames : frames.slice(0, now));
    this.#wait();
  }

  /** Whoever is given frames takes none for now, or takes them again. */
  open(isOpen: boolean): void {
    this.#isOpen = isOpen;
    if (isOpen) this.#serve();
  }

  /** What waits is dropped. */
  close(): void {
    this.#isOpen = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#dropped += this.#frames.length;
    this.#frames = [];
    this.#bytes = 0;
  }

  get #canGive(): boolean {
    return this.#isOpen && !this.#isGiving && this.#frames.length === 0;
  }

  /** How many of the first frames go on now, which are paid for with it. */
  #allowed(frames: readonly NetFrame[]): number {
    const { clock, budget } = this.#options;
    const nowNs = clock.nowNs();
    let count = 0;
    while (count < frames.length && budget.untilFreeNs(nowNs) === 0) budget.take(frames[count++]!.bytes.length);
    return count;
  }

  #serve(): void {
    if (!this.#isOpen || this.#isGiving || this.#timer !== undefined || this.#frames.length === 0) return;
    const batch = this.#frames.splice(0, this.#allowed(this.#frames));
    for (const { bytes } of batch) this.#bytes -= bytes.length;
    if (batch.length > 0) this.#give(batch);
    if (this.#frames.length > 0) this.#wait();
    else if (batch.length > 0 && this.#isOpen) this.#options.emptied();
  }

  #give(frames: readonly NetFrame[]): void {
    this.#isGiving = true;
    const more = this.#options.give(frames);
    this.#isGiving = false;
    if (!more) this.#isOpen = false;
  }

  #wait(): void {
    if (!this.#isOpen || this.#timer !== undefined || this.#frames.length === 0) return;
    const { clock, budget } = this.#options;
    const waitNs = Math.max(LEAST_WAIT_NS, budget.untilFreeNs(clock.nowNs()));
    this.#timer = clock.setTimer(BigInt(Math.ceil(waitNs)), () => {
      this.#timer = undefined;
      this.#serve();
    });
  }
}

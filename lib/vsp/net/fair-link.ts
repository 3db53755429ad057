/**
 * One direction of a link that several guests share: while it takes no more (back pressure, or the budget of the whole link is spent),
 * each guest's frames wait in a flow of its own, bounded, and the flows have their turns by weight and bytes (sharing/fair-queue.ts).
 *
 *   push -> nobody waits: at once  | pieces of at most PIECE_BYTES -> fair queue -> give
 *                                  | beyond the flow's bound: dropped, counted
 *
 * It knows nothing of what is at either end.
 */
import type { Clock, Timer } from '../../base/clock.js';
import { KiB } from '../../base/units.js';
import type { Budget } from '../sharing/budget.js';
import { FairQueue, type Flow } from '../sharing/fair-queue.js';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';

export interface FairLinkOptions {
  readonly clock: Clock;
  /** Of all together. Undefined: only back pressure makes anybody wait. */
  readonly budget: Budget | undefined;
  /** Of each flow. */
  readonly maxWaitingBytes: number;
  /** False: no more until open(). */
  give(frames: readonly NetFrame[]): boolean;
}

/** What has its turn at once, at most, unless one frame is longer. */
const PIECE_BYTES = 64 * KiB;
/** What a frame takes of a wire besides its bytes: preamble, check sequence and gap of Ethernet (IEEE 802.3). */
const FRAME_COST_BYTES = 24;

export class FairLink {
  readonly #options: FairLinkOptions;
  /** One piece at a time: it is in service until the next one may go. */
  readonly #queue = new FairQueue(1);
  #isOpen = true;
  /** Whose piece was given last, while no other may go. */
  #served: Flow | undefined;
  #timer: Timer | undefined;

  constructor(options: FairLinkOptions) {
    this.#options = options;
  }

  /** @throws RangeError for a weight that is none. */
  flow(weight: number): LinkFlow {
    return new LinkFlow(this.#queue.flow(weight), this.#options.maxWaitingBytes, (flow, frames) =>
      this.#give(flow, frames),
    );
  }

  /** Who takes frames does so again. */
  open(): void {
    this.#isOpen = true;
    this.#goOn();
  }

  #give(flow: Flow, frames: readonly NetFrame[]): void {
    const { budget } = this.#options;
    if (budget !== undefined) for (const { bytes } of frames) budget.take(bytes.length);
    this.#served = flow;
    // Only of what was given now: who says false calls open() later.
    if (frames.length > 0 && !this.#options.give(frames)) this.#isOpen = false;
    this.#goOn();
  }

  #goOn(): void {
    if (this.#served === undefined || !this.#isOpen || this.#timer !== undefined) return;
    const { budget, clock } = this.#options;
    const waitNs = budget?.untilFreeNs(clock.nowNs()) ?? 0;
    if (waitNs > 0) {
      this.#timer = clock.setTimer(BigInt(Math.ceil(waitNs)), () => {
        this.#timer = undefined;
        this.#goOn();
      });
      return;
    }
    const flow = this.#served;
    this.#served = undefined;
    flow.ended();
  }
}

interface Piece {
  frames: readonly NetFrame[];
  readonly bytes: number;
  hasGone: boolean;
}

/** What one guest has of it. */
export class LinkFlow {
  /** Nothing waits any more, after isFull was true. */
  onRoom: (() => void) | undefined;
  readonly #flow: Flow;
  readonly #maxWaitingBytes: number;
  readonly #give: (flow: Flow, frames: readonly NetFrame[]) => void;
  #waitingBytes = 0;
  #wasFull = false;
  #isClosed = false;
  #passed = { frames: 0, bytes: 0 };
  #dropped = 0;

  constructor(flow: Flow, maxWaitingBytes: number, give: (flow: Flow, frames: readonly NetFrame[]) => void) {
    this.#flow = flow;
    this.#maxWaitingBytes = maxWaitingBytes;
    this.#give = give;
  }

  /** Who can be held has to be: anything waits. */
  get isFull(): boolean {
    if (this.#waitingBytes > 0) this.#wasFull = true;
    return this.#waitingBytes > 0;
  }

  push(frames: readonly NetFrame[]): void {
    if (this.#isClosed) return;
    for (let at = 0; at < frames.length;) {
      const from = at;
      let bytes = 0;
      do bytes += frames[at++]!.bytes.length;
      while (at < frames.length && bytes + frames[at]!.bytes.length <= PIECE_BYTES);
      this.#submit(from === 0 && at === frames.length ? frames : frames.slice(from, at), bytes);
    }
  }

  /** What waits is dropped. */
  close(): void {
    this.#isClosed = true;
    this.onRoom = undefined;
  }

  inspect() {
    return { ...this.#passed, waitingBytes: this.#waitingBytes, dropped: this.#dropped };
  }

  #submit(frames: readonly NetFrame[], bytes: number): void {
    if (this.#waitingBytes + bytes > this.#maxWaitingBytes) {
      this.#dropped += frames.length;
      return;
    }
    const piece: Piece = { frames, bytes, hasGone: false };
    this.#waitingBytes += bytes;
    this.#flow.submit(bytes + frames.length * FRAME_COST_BYTES, () => this.#start(piece));
    // Its maker uses the bytes again.
    if (!piece.hasGone) piece.frames = frames.map(keptFrame);
  }

  #start(piece: Piece): void {
    piece.hasGone = true;
    this.#waitingBytes -= piece.bytes;
    if (this.#isClosed) this.#dropped += piece.frames.length;
    else {
      this.#passed.frames += piece.frames.length;
      this.#passed.bytes += piece.bytes;
    }
    this.#give(this.#flow, this.#isClosed ? [] : piece.frames);
    if (!this.#wasFull || this.#waitingBytes > 0) return;
    this.#wasFull = false;
    this.onRoom?.();
  }
}

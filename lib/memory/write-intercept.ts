/**
 * Guest memory as it was at one instant, handed over group by group while vCPUs go on (native/memory/write_intercept.h).
 *
 *   prepare -> [arm] -> begin, with vCPUs stopped and I/O drained -> walk -> ended() resolves -> release
 *
 * `arm` protects ahead, piece by piece, so that `begin` protects again only what was written since; with huge pages, which
 * are protected 2 MiB at a time, it is not worth it. `release` may be called at any time, and then nothing is protected.
 */
import { setImmediate } from 'node:timers/promises';
import { VmmError } from '../base/errors.js';
import type { NativeGroupSink, NativeInterceptStatus } from '../kvm/native-pager.js';
import type { GuestPager } from './guest-pager.js';
import { allGroups } from './groups.js';
import { type Backing, userFaultSupport } from './user-fault.js';

export type InterceptStats = Readonly<NativeInterceptStatus>;

/** 16 MiB: what a guest may write at full speed while the sink has no room. */
const BUFFER_GROUPS = 256;
const MAX_BUFFER_GROUPS = 16_384;
/** Protected at once ahead of the instant: 16 MiB, which takes about 2 ms in pages of 4 KiB. */
const ARM_GROUPS = 256;

/**
 * Before anything is made for a snapshot with the mode 'instant'.
 *
 * @throws VmmError ERR_SNAPSHOT_REFUSED where the kernel can't intercept: the name of what is lacking, and that `live` can be had
 */
export function requireIntercept(backing: Backing, support = userFaultSupport(backing)): void {
  const { instant } = support;
  if (instant === undefined) return;
  throw new VmmError('ERR_SNAPSHOT_REFUSED', `mode 'instant': this host lacks ${instant.name}`, {
    cure: `${instant.cure}; the mode 'live' needs none of it`,
  });
}

/** The same runs, each lot of at most `most` groups. */
export function* pieces(runs: Uint32Array, most: number): Generator<Uint32Array> {
  // Not runs at all: whoever takes it says so.
  if (runs.length % 2 === 1) yield runs;
  let lot: number[] = [];
  let room = most;
  for (let at = 0; at + 1 < runs.length; at += 2) {
    let first = runs[at]!;
    let left = runs[at + 1]!;
    while (left > 0) {
      const count = Math.min(left, room);
      lot.push(first, count);
      first += count;
      left -= count;
      room -= count;
      if (room > 0) continue;
      yield Uint32Array.from(lot);
      lot = [];
      room = most;
    }
  }
  if (lot.length > 0) yield Uint32Array.from(lot);
}

export class WriteIntercept {
  readonly #pager: GuestPager;

  constructor(pager: GuestPager) {
    this.#pager = pager;
  }

  /**
   * What takes time, before the vCPUs stop.
   *
   * @throws VmmError ERR_SNAPSHOT_REFUSED where the kernel can't intercept: the name of what is lacking, and that `live`
   *   can be had; ERR_STATE while another one is under way; ERR_PAGER when guest memory is not whole
   */
  prepare({ bufferGroups = BUFFER_GROUPS }: { readonly bufferGroups?: number } = {}): void {
    if (!Number.isSafeInteger(bufferGroups) || bufferGroups < 0 || bufferGroups > MAX_BUFFER_GROUPS) {
      throw new RangeError(`bufferGroups: ${bufferGroups} is not a whole number from 0 to ${MAX_BUFFER_GROUPS}`);
    }
    requireIntercept(this.#pager.memory.backing);
    this.#ask(() => this.#pager.native.prepare(bufferGroups));
  }

  /**
   * Protects these groups ahead of the instant, while the guest runs: a piece at a time, since whoever writes to what is
   * protected waits for a piece to its end, and so does the event loop. Runs as of groups.ts; all when none are given.
   *
   * @throws VmmError ERR_PAGER; ERR_ABORTED when it was released meanwhile
   */
  async arm(runs: Uint32Array = this.#all()): Promise<void> {
    for (const piece of pieces(runs, ARM_GROUPS)) {
      this.#ask(() => this.#pager.native.arm(piece));
      await setImmediate();
      if (this.stats.phase !== 'armed') throw new VmmError('ERR_ABORTED', 'the write intercept was released');
    }
  }

  /** The instant. From here on every group of the runs goes to the sink once, with the bytes that it has now. */
  begin(sink: NativeGroupSink, runs: Uint32Array = this.#all()): void {
    this.#ask(() => this.#pager.native.begin(runs, sink));
  }

  /** The background walk starts; the vCPUs should run again by now. */
  walk(): void {
    this.#pager.native.walk();
  }

  /** Resolves when every group was handed over. @throws VmmError ERR_PAGER; ERR_ABORTED when it was released before */
  ended(): Promise<InterceptStats> {
    return new Promise((resolve, reject) => {
      const look = (): boolean => {
        const { failure } = this.#pager;
        if (failure !== undefined) reject(failure);
        else if (this.stats.phase === 'done') resolve(this.stats);
        else if (this.stats.phase === 'off') reject(new VmmError('ERR_ABORTED', 'the write intercept was released'));
        else return false;
        return true;
      };
      if (look()) return;
      const off = this.#pager.onEvent(() => {
        if (look()) off();
      });
      this.#release = () => {
        if (look()) off();
      };
    });
  }

  #release: (() => void) | undefined;

  get stats(): InterceptStats {
    return this.#pager.native.status().intercept;
  }

  /** Ends it, finished or not; idempotent. */
  release(): void {
    this.#pager.native.release();
    this.#release?.();
    this.#release = undefined;
  }

  #all(): Uint32Array {
    return allGroups(this.#pager.memory.sizeBytes);
  }

  /** What the addon says to a memory that is not whole says less than why it is not. */
  #ask(call: () => void): void {
    if (this.#pager.failure !== undefined) throw this.#pager.failure;
    try {
      call();
    } catch (error) {
      throw this.#pager.failure ?? error;
    }
  }
}

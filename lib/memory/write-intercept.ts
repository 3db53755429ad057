/**
 * Guest memory as it was at one instant, handed over group by group while vCPUs go on (native/memory/write_intercept.h).
 *
 *   prepare -> [arm] -> begin, with vCPUs stopped and I/O drained -> walk -> ended() resolves -> release
 *
 * `arm` protects ahead, so that `begin` protects again only what was written since; with huge pages, which are
 * protected 2 MiB at a time, it is not worth it. `release` may be called at any time, and then nothing is protected.
 */
import { VmmError } from '../base/errors.js';
import type { NativeGroupSink, NativeInterceptStatus } from '../kvm/native-pager.js';
import type { GuestPager } from './guest-pager.js';
import { allGroups } from './groups.js';
import { userFaultSupport } from './user-fault.js';

export type InterceptStats = Readonly<NativeInterceptStatus>;

/** 16 MiB: what a guest may write at full speed while the sink has no room. */
const BUFFER_GROUPS = 256;
const MAX_BUFFER_GROUPS = 16_384;

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
    const { instant } = userFaultSupport(this.#pager.memory.backing);
    if (instant !== undefined) {
      throw new VmmError('ERR_SNAPSHOT_REFUSED', `mode 'instant': this host lacks ${instant.name}`, {
        cure: `${instant.cure}; the mode 'live' needs none of it`,
      });
    }
    this.#throwIfBroken();
    this.#pager.native.prepare(bufferGroups);
  }

  /** Protects these groups ahead of the instant, while the guest runs. Runs as of groups.ts; all when none are given. */
  arm(runs: Uint32Array = this.#all()): void {
    this.#throwIfBroken();
    this.#pager.native.arm(runs);
  }

  /** The instant. From here on every group of the runs goes to the sink once, with the bytes that it has now. */
  begin(sink: NativeGroupSink, runs: Uint32Array = this.#all()): void {
    this.#throwIfBroken();
    this.#pager.native.begin(runs, sink);
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

  #throwIfBroken(): void {
    if (this.#pager.failure !== undefined) throw this.#pager.failure;
  }
}

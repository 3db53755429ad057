/** The part of the addon's contract (native.ts) that steers and watches the kernel's PIT: native/thread/pit_steering, pit_watch. */

/**
 * Counts the ticks of GSI 0 that the guest acknowledges, and changes channel 0 of the kernel's PIT on the event thread,
 * with every vCPU held outside the guest. Lives as long as its VM.
 */
export interface NativePit {
  /** Stands in the runtime's queue when takeOutcome() has something to give. */
  readonly sourceId: number;
  /** Acknowledged ticks since openPit(). Never blocks. */
  delivered(): bigint;
  /** What channel 0 holds, whether the guest runs or not; count 0 and mode 0 while it was never programmed. KvmError. */
  read(): NativePitReading;
  /** Hands a change over; ERR_STATE until the outcome of the one before was taken. */
  change(change: NativePitChange): void;
  /** The oldest outcome: of the change, or of the expiry that a change before it had armed. */
  takeOutcome(): NativePitOutcome | undefined;
  /** The event thread looks from now on, or no more; a change ends it too. */
  watch(calm: NativePitCalm | undefined): void;
  /** The last look of this watch that found nothing, if there was one since the last call. */
  takeLook(): NativePitLook | undefined;
  /** Something was found since the last call; the watch is over then. */
  takeStir(): boolean;
}

/** What the event thread finds as long as nothing happens. Times are CLOCK_MONOTONIC. */
export interface NativePitCalm {
  readonly expected: NativePitLoad & { readonly mode: number };
  /** Of the ticks; 0n: none is expected. */
  readonly periodNs: bigint;
  /** A moment that has passed, and the counter at it. */
  readonly sinceNs: bigint;
  readonly delivered: bigint;
  /** What the ticks since then may be worth less, and more, than the time since. */
  readonly behindNs: bigint;
  readonly aheadNs: bigint;
  /** Between two looks; a millisecond at least. */
  readonly intervalNs: bigint;
}

export interface NativePitLook {
  readonly atNs: bigint;
  readonly delivered: bigint;
  /** What each vCPU's thread has used so far. */
  readonly vcpuCpuNs: BigUint64Array;
}

/**
 * What channel 0 counts from: 1 to 65536 where the guest loaded it, up to 2^32 - 1 from the host, 0 before the first load.
 * And its write latch (0 to 255): the low byte of the guest's last 16-bit reload, or a mark of the host's.
 */
export interface NativePitLoad {
  readonly count: number;
  readonly latch: number;
}

export interface NativePitReading extends NativePitLoad {
  /** 8254 operating mode, 0 to 5. */
  readonly mode: number;
  /** The guest is between the two bytes of a 16-bit reload. */
  readonly midWrite: boolean;
}

export interface NativePitChange {
  /** What channel 0 must hold, or nothing is changed: count 0 and mode 0 while it was never programmed. */
  readonly expected: NativePitLoad & { readonly mode: number };
  readonly load?: NativePitLoad | undefined;
  /** KVM_REINJECT_CONTROL; comes before the load, which empties the kernel's backlog in any case. */
  readonly reinject?: boolean | undefined;
  /** Waits so long for an acknowledged tick, to come just after it. */
  readonly waitForTickNs: bigint;
  /** A load that comes by itself, so long after the moment of this one, unless another change is handed over before. */
  readonly expiry?: { readonly afterNs: bigint; readonly load: NativePitLoad } | undefined;
}

/** Times are CLOCK_MONOTONIC, as process.hrtime.bigint() gives it. */
export type NativePitOutcome =
  | {
      /** Of an expiry, not of a change. */
      readonly expired: boolean;
      readonly result: 'applied' | 'changed' | 'busy';
      readonly atNs: bigint;
      /** The counter while the vCPUs were held. */
      readonly delivered: bigint;
      /** How long they were. */
      readonly heldNs: bigint;
      /** What channel 0 held; nothing of use where a vCPU did not come out (busy). */
      readonly count: number;
      readonly mode: number;
      readonly latch: number;
      readonly midWrite: boolean;
    }
  | { readonly expired: false; readonly result: 'failed'; readonly error: Error };

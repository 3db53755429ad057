/**
 * The kernel's PIT as the controller sees it: what it counts, what it holds, and how it is changed. The controller takes
 * this interface and never the addon; lib/machine joins it to KVM, lib/time/testing.ts to a simulated PIT and guest.
 *
 * Reload mark: channel 0's `write_latch` keeps the low byte of the guest's last 16-bit reload (arch/x86/kvm/i8254.c), and
 * the kernel reads it only between the two bytes of such a write. Whoever loads a count of the host's puts a mark there
 * that differs from the low byte of that count; a latch that is no longer the mark says that the guest has reloaded,
 * also when it loaded the very same count.
 */

/** Channel 0 as KVM_GET_PIT2 tells it, with what matters of channel 2. */
export interface PitReading {
  /** The reload value in force: 1 to 65536 from the guest; the host may load more. 0 before the first load. */
  readonly count: number;
  /** 8254 operating mode, 0 to 5. */
  readonly mode: number;
  /** channels[0].write_latch. */
  readonly latch: number;
  /** The guest is between the two bytes of a 16-bit reload. */
  readonly midWrite: boolean;
}

/**
 * One wish of the controller: carried out natively with every vCPU held outside the guest, or not at all. It ends the expiry of
 * the change before it, also when it loads nothing: a change with neither `load` nor `reinject` sets a new expiry alone.
 */
export interface PitChange {
  /** What channel 0 must still hold; if it holds something else the guest came first, and nothing is changed. */
  readonly expected: { readonly count: number; readonly mode: number; readonly latch: number };
  /** The reload value to fire with, and the mark that goes with it. Undefined: only reinjection changes. */
  readonly load?: { readonly count: number; readonly latch: number };
  /** KVM_REINJECT_CONTROL. Undefined: left as it is. */
  readonly reinject?: boolean;
  /** How long to wait for an acknowledged tick, so that the change comes just after one. 0n: at once. */
  readonly waitForTickNs: bigint;
  /**
   * After this time native code loads `then` by itself, without JavaScript, unless a further change came first. It makes
   * the same checks. Undefined: the change stands until the next one.
   */
  readonly expiry?: { readonly afterNs: bigint; readonly load: { readonly count: number; readonly latch: number } };
}

export type PitOutcome =
  /** Done. `atNs` on the controller's clock; `delivered` is the counter at that moment, the vCPUs being held. */
  | { readonly result: 'applied'; readonly atNs: bigint; readonly delivered: bigint; readonly heldNs: bigint }
  /** The guest had changed channel 0, or is in the middle of it: nothing was done, here is what it holds. */
  | { readonly result: 'changed'; readonly atNs: bigint; readonly delivered: bigint; readonly reading: PitReading }
  /** A one-shot measurement on channel 2 is under way, which a load would disturb; or a vCPU did not come out. */
  | { readonly result: 'busy'; readonly atNs: bigint; readonly delivered: bigint };

/** What is known of the guest's ability to take ticks, sampled by the controller. */
export interface TickConditions {
  /** IRQ 0 is masked wherever it could arrive (PICs and IO-APIC); undefined when it was not looked at. */
  readonly masked: boolean | undefined;
  /** The CPU time that each vCPU's thread has used since the machine was made, in ns. */
  readonly vcpuCpuNs: readonly bigint[];
  /** Which vCPUs sit in a halt, waiting for an interrupt; they use no CPU time and are not starved. Undefined: unknown. */
  readonly halted?: readonly boolean[];
}

export interface PitPort {
  /** Acknowledged ticks since the machine was made: exact, and read without stopping anything. */
  delivered(): bigint;
  /** KVM_GET_PIT2. May be called while the guest runs. */
  read(): PitReading;
  /** Looks at masks only when `masks` is set, since that takes further ioctls. */
  conditions(masks: boolean): TickConditions;
  /** One change at a time; a further call while one is under way is a mistake of the caller's. Rejects when closed. */
  change(change: PitChange): Promise<PitOutcome>;
  /**
   * Called when an expiry was carried out (or found that the guest had changed the PIT first). A call about an expiry that a
   * further change has replaced in the meantime does no harm; neither does one that comes late.
   */
  onExpired: ((outcome: PitOutcome) => void) | undefined;
  /** The shortest period the kernel fires at, in ns (kvm's min_timer_period_us). */
  readonly minPeriodNs: bigint;
}

/**
 * The kernel's PIT as the controller sees it: what it counts, what it holds, and how it is changed. The controller takes
 * this interface and never the addon; lib/machine joins it to KVM, lib/time/testing.ts to a simulated PIT and guest.
 *
 * Reload mark: channel 0's `write_latch` keeps the low byte of the guest's last 16-bit reload (arch/x86/kvm/i8254.c), and
 * the kernel reads it only between the two bytes of such a write. Whoever loads a count of the host's puts a mark there
 * that differs from the low byte of that count; a latch that is no longer the mark says that the guest has reloaded,
 * also when it loaded the very same count.
 */
import type { PitCalm, PitChange, PitLook, PitOutcome, PitReading } from '../kvm/index.js';

export type { PitCalm, PitChange, PitLook, PitOutcome, PitReading };

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
  /**
   * Looks at intervals without JavaScript, until what it finds is not what `calm` says; `onStirred` is called then, once.
   * Undefined, and every change(): no more.
   */
  watch(calm: PitCalm | undefined): void;
  onStirred: (() => void) | undefined;
  /** The last look of the present watch that found nothing; undefined when there was none since the last call. */
  takeLook(): PitLook | undefined;
  /** The shortest period the kernel fires at, in ns (kvm's min_timer_period_us). */
  readonly minPeriodNs: bigint;
}

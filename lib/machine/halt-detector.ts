/**
 * Finds out that a machine is halted for good: every CPU in `hlt` with interrupts off, or never started. KVM with its
 * interrupt controllers in the kernel does not report that: such a vCPU sleeps in KVM_RUN for ever.
 *
 * It looks only when no vCPU has used CPU time or left KVM_RUN since the last look, so a busy guest costs a few reads.
 * Then it parks the vCPUs for a moment, reads their state, and lets them run on.
 */
import { MpState } from '../abi/kvm.js';
import type { Clock, Timer } from '../base/clock.js';

/** Two looks fit into a second: a halt just after one is found by the second next at the latest. */
const INTERVAL_NS = 400_000_000n;
const RFLAGS_IF = 1n << 9n;

/** What the detector needs of a vCPU. */
export interface HaltableCpu {
  counters(): { readonly exits: bigint; readonly threadCpuNs: bigint };
  getMpState(): number;
  getRegs(): { readonly rflags: bigint };
  /** True when an NMI waits, which would wake it. */
  hasPendingNmi(): boolean;
}

export interface HaltDetectorOptions {
  readonly clock: Clock;
  readonly cpus: readonly HaltableCpu[];
  /** Parks all vCPUs, calls `look`, and resumes them unless it was answered true. False when it is no time to look. */
  readonly whileParked: (look: () => boolean) => Promise<void>;
  readonly onHalted: () => void;
}

export class HaltDetector {
  readonly #options: HaltDetectorOptions;
  #timer: Timer | undefined;
  #last = '';
  #running = false;

  constructor(options: HaltDetectorOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#last = '';
    this.#arm();
  }

  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    this.#timer = this.#options.clock.setTimer(INTERVAL_NS, () => void this.#tick());
  }

  async #tick(): Promise<void> {
    const activity = this.#options.cpus
      .map((cpu) => cpu.counters())
      .map(({ exits, threadCpuNs }) => `${exits}:${threadCpuNs}`)
      .join(' ');
    const idle = activity === this.#last;
    this.#last = activity;
    if (idle) {
      let halted = false;
      await this.#options.whileParked(() => {
        halted = this.#options.cpus.every(isHaltedForGood);
        return halted;
      });
      if (halted && this.#running) {
        this.stop();
        this.#options.onHalted();
        return;
      }
      // Parking itself costs the threads CPU time; the next look starts from what they have now.
      this.#last = this.#options.cpus
        .map((cpu) => cpu.counters())
        .map(({ exits, threadCpuNs }) => `${exits}:${threadCpuNs}`)
        .join(' ');
    }
    if (this.#running) this.#arm();
  }
}

function isHaltedForGood(cpu: HaltableCpu): boolean {
  switch (cpu.getMpState()) {
    case MpState.UNINITIALIZED:
      return true;
    case MpState.HALTED:
      return (cpu.getRegs().rflags & RFLAGS_IF) === 0n && !cpu.hasPendingNmi();
    default:
      return false;
  }
}

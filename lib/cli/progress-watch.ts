/**
 * The watchdog of a guest that has not shown its first sign of life: the console's first byte, or with a COMMAND the
 * agent's hello, towards which every console byte and every frame is progress. From then on a guest may be silent for
 * ever, as one at a prompt is. It watches and describes; ending the run is its caller's.
 *
 *   watching --no progress for the limit--> stalled (told once)
 *      |  alive(), stop()
 *      +------------------> over
 */
import type { Clock, Timer } from '../base/clock.js';

/** Time passes in slices of the limit, so that one during which this process itself was stopped counts once only. */
const SLICES = 20;

export class ProgressWatch {
  readonly #clock: Clock;
  readonly #sliceNs: bigint;
  readonly #onStall: () => void;
  #idleSlices = 0;
  #timer: Timer | undefined;
  #over = false;

  /** `limitMs` 0 never stalls. */
  constructor(clock: Clock, limitMs: number, onStall: () => void) {
    this.#clock = clock;
    this.#sliceNs = (BigInt(limitMs) * 1_000_000n) / BigInt(SLICES);
    this.#onStall = onStall;
    if (limitMs === 0) this.#over = true;
  }

  /** The guest starts now. */
  start(): void {
    if (this.#over) return;
    this.#timer = this.#clock.setTimer(this.#sliceNs, () => {
      this.#idleSlices++;
      if (this.#idleSlices < SLICES) return this.start();
      this.stop();
      this.#onStall();
    });
  }

  /** Something came of the guest. */
  progress(): void {
    this.#idleSlices = 0;
  }

  /** The first sign of life is there. */
  alive(): void {
    this.stop();
  }

  /** Idempotent. */
  stop(): void {
    this.#over = true;
    this.#timer?.cancel();
  }
}

/** What a CPU of a paused machine was doing, as vm.inspect() has it. */
export interface StalledCpu {
  readonly id: number;
  /** Undefined when the CPU could not be stopped. */
  readonly rip: string | undefined;
  readonly interruptsOn: boolean | undefined;
  readonly waiting: 'halted' | 'for its start' | undefined;
}

const RFLAGS_IF = 0x200n;
/** KVM_MP_STATE_UNINITIALIZED, INIT_RECEIVED and HALTED. */
const WAITING: Readonly<Record<number, 'halted' | 'for its start'>> = {
  1: 'for its start',
  2: 'for its start',
  3: 'halted',
};

/** The CPUs of an inspect() tree. What is not there is left out, since a report must not fail. */
export function stalledCpus(tree: unknown): readonly StalledCpu[] {
  const { cpus } = (tree ?? {}) as { cpus?: unknown };
  if (!Array.isArray(cpus)) return [];
  return cpus.map((value: unknown) => {
    const cpu = value as { id?: number; mpState?: number; regs?: Record<string, string> };
    const rflags = cpu.regs?.['rflags'];
    return {
      id: cpu.id ?? 0,
      rip: cpu.regs?.['rip'],
      interruptsOn: rflags === undefined ? undefined : (BigInt(rflags) & RFLAGS_IF) !== 0n,
      waiting: WAITING[cpu.mpState ?? 0],
    };
  });
}

/** Such as "CPU 0 halted at rip 0xffffffff81a0, interrupts on". */
export function describeCpu(cpu: StalledCpu): string {
  const name = `CPU ${cpu.id}`;
  if (cpu.waiting === 'for its start') return `${name} waits for its start`;
  if (cpu.rip === undefined) return `${name} does not leave the guest`;
  const interrupts = cpu.interruptsOn === undefined ? '' : `, interrupts ${cpu.interruptsOn ? 'on' : 'off'}`;
  return `${name} ${cpu.waiting === 'halted' ? 'halted' : 'runs'} at rip ${cpu.rip}${interrupts}`;
}

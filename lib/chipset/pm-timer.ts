/**
 * The ACPI power management timer: a free-running 32-bit counter at 3.579545 MHz (ACPI 6.5, section 4.8.3.3), computed
 * from the clock when it is read. TMR_STS follows each change of the counter's top bit. A host timer runs only while
 * the guest wants that event's interrupt; Linux never does.
 */
import * as v from 'valibot';
import { PM_TIMER_HZ } from '../abi/acpi-pm.js';
import type { Clock, Timer } from '../base/clock.js';
import { stateFormat, u64, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AccessSize, BusDevice } from '../bus/device.js';

/** The top bit changes each time these many counts have gone by. */
const HALF_RANGE = 1n << 31n;
const NS_PER_SECOND = 1_000_000_000n;

const pmTimerFormat = stateFormat({
  type: 'pm-timer',
  version: 1,
  schema: v.strictObject({ runNs: u64, acknowledged: u64 }),
});

export class PmTimer implements BusDevice, Savable {
  readonly name = 'pm-timer';
  /** Called when the top bit changes while it is watched. */
  onOverflow: (() => void) | undefined;

  readonly #clock: Clock;
  #startNs: bigint;
  /** Changes of the top bit that the guest has acknowledged. */
  #acknowledged = 0n;
  #watch: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startNs = clock.nowNs();
  }

  /** TMR_STS. */
  get overflowed(): boolean {
    return this.#count() / HALF_RANGE > this.#acknowledged;
  }

  clearOverflow(): void {
    this.#acknowledged = this.#count() / HALF_RANGE;
  }

  /** TMR_EN: from now on onOverflow is called, or not. */
  watchOverflow(on: boolean): void {
    if (on === (this.#watch !== undefined)) return;
    this.#watch?.cancel();
    this.#watch = undefined;
    if (on) this.#arm();
  }

  read(offset: number, size: AccessSize): number {
    const value = (this.#count() & 0xffff_ffffn) >> BigInt(8 * offset);
    return Number(BigInt.asUintN(8 * Math.min(size, 4), value));
  }

  write(): void {
    // The counter can't be written.
  }

  reset(): void {
    this.#startNs = this.#clock.nowNs();
    this.#acknowledged = 0n;
  }

  saveState(): SavedPart {
    return pmTimerFormat.save({ runNs: this.#clock.nowNs() - this.#startNs, acknowledged: this.#acknowledged });
  }

  /** Whether it is watched is the power management's to restore. */
  restoreState(part: SavedPart): void {
    const { runNs, acknowledged } = pmTimerFormat.load(part);
    this.#startNs = this.#clock.nowNs() - runNs;
    this.#acknowledged = acknowledged;
  }

  /** The counter moves on by time in which the guest did not run. */
  passTime(ns: bigint): void {
    this.#startNs -= ns;
    if (!this.#watch) return;
    this.watchOverflow(false);
    this.watchOverflow(true);
  }

  inspect(): unknown {
    return { count: Number(this.#count() & 0xffff_ffffn), overflowed: this.overflowed };
  }

  #count(): bigint {
    return ((this.#clock.nowNs() - this.#startNs) * PM_TIMER_HZ) / NS_PER_SECOND;
  }

  #arm(): void {
    const next = (this.#count() / HALF_RANGE + 1n) * HALF_RANGE;
    const dueNs = this.#startNs + (next * NS_PER_SECOND + PM_TIMER_HZ - 1n) / PM_TIMER_HZ;
    this.#watch = this.#clock.setTimer(dueNs - this.#clock.nowNs(), () => {
      this.#arm();
      this.onOverflow?.();
    });
  }
}

/**
 * The controller's model of the kernel's timer: how many ticks a count must have fired since it was loaded, and how far
 * the present period has gone. A load by the host restarts the period at a known moment, one by the guest at an unknown one.
 */
import { kernelPeriodNs } from './counts.js';

export class Firing {
  readonly #minPeriodNs: bigint;
  #count: number;
  #periodNs: bigint;
  #sinceTickNs = 0n;
  #phaseIsKnown = false;

  constructor(count: number, minPeriodNs: bigint) {
    this.#minPeriodNs = minPeriodNs;
    this.#count = count;
    this.#periodNs = kernelPeriodNs(Math.max(1, count), minPeriodNs);
  }

  get count(): number {
    return this.#count;
  }

  /** What KVM makes of the count. */
  get periodNs(): bigint {
    return this.#periodNs;
  }

  get hz(): number {
    return 1e9 / Number(this.#periodNs);
  }

  /** The time since the timer last fired, or was loaded; undefined when a load of the guest's has hidden it. */
  get sinceTickNs(): bigint | undefined {
    return this.#phaseIsKnown ? this.#sinceTickNs : undefined;
  }

  /** The ticks fired in a further `elapsedNs`. */
  advance(elapsedNs: bigint): bigint {
    const total = this.#sinceTickNs + elapsedNs;
    this.#sinceTickNs = total % this.#periodNs;
    return total / this.#periodNs;
  }

  /** The period restarts. `phaseIsKnown`: the host loaded it, just now. */
  load(count: number, phaseIsKnown: boolean): void {
    this.#count = count;
    this.#periodNs = kernelPeriodNs(Math.max(1, count), this.#minPeriodNs);
    this.#sinceTickNs = 0n;
    this.#phaseIsKnown = phaseIsKnown;
  }
}

/**
 * A device of the bench programs on the machine's bus: takes the time of each write to it. Counts what is asked of a
 * second port, so that a run that measured nothing is noticed.
 */
import type { BusDevice } from '#lib/bus/device.js';

export class Marks implements BusDevice {
  readonly name = 'marks';
  readonly #times: bigint[] = [];
  #waiting: { count: number; resolve: () => void } | undefined;

  read(): number {
    return 0;
  }

  write(): void {
    this.#times.push(process.hrtime.bigint());
    if (this.#waiting && this.#times.length >= this.#waiting.count) this.#waiting.resolve();
  }

  reset(): void {
    this.#times.length = 0;
  }

  inspect(): unknown {
    return { marks: this.#times.length };
  }

  /** Nanoseconds between two marks. */
  betweenNs(first: number, second: number): number {
    return Number(this.#times[second]! - this.#times[first]!);
  }

  atNs(index: number): bigint {
    return this.#times[index]!;
  }

  get count(): number {
    return this.#times.length;
  }

  /** Resolves when the guest has set that many marks. */
  async reached(count: number): Promise<void> {
    if (this.#times.length >= count) return;
    await new Promise<void>((resolve) => (this.#waiting = { count, resolve }));
  }
}

/** A device that answers every read with one value: the least that a TypeScript device can do. */
export class Answering implements BusDevice {
  readonly name = 'answering';
  reads = 0;

  read(): number {
    this.reads++;
    return 0x5a;
  }

  write(): void {
    // Nothing writes here.
  }

  reset(): void {
    this.reads = 0;
  }

  inspect(): unknown {
    return { reads: this.reads };
  }
}

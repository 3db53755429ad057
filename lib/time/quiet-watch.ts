/**
 * Whether anything has moved since the last full look at a guest that does not keep time by the PIT: most Linux guests,
 * once they have booted. Then there is nothing to book, and a look costs one reading.
 */
import type { PitReading } from './pit-port.js';

export class QuietWatch {
  #delivered: bigint | undefined;
  #reading: PitReading | undefined;

  /** What a full look found, and that nothing can follow from it but by a move of the guest's. */
  note(delivered: bigint, reading: PitReading): void {
    this.#delivered = delivered;
    this.#reading = reading;
  }

  clear(): void {
    this.#reading = undefined;
  }

  /** The last full look found that nothing can follow but from a move of the guest's. */
  get isNoted(): boolean {
    return this.#reading !== undefined;
  }

  /** Nothing has moved since the note. */
  isStill(delivered: bigint, reading: PitReading): boolean {
    const seen = this.#reading;
    return (
      seen !== undefined &&
      delivered === this.#delivered &&
      reading.count === seen.count &&
      reading.mode === seen.mode &&
      reading.latch === seen.latch &&
      !reading.midWrite
    );
  }
}

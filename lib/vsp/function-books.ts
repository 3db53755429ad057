/**
 * What is counted for each function of a device since it was made: calls, errors, time, data. Arrays indexed by the
 * function's place in its class, so that booking a call in a hot path makes no object.
 */
import type { FunctionReport, ServedBy } from './contract.js';

export class FunctionBooks<Name extends string> {
  readonly #names: readonly Name[];
  readonly #calls: Float64Array;
  readonly #errors: Float64Array;
  readonly #ns: Float64Array;
  readonly #bytes: Float64Array;

  constructor(names: readonly Name[]) {
    this.#names = names;
    this.#calls = new Float64Array(names.length);
    this.#errors = new Float64Array(names.length);
    this.#ns = new Float64Array(names.length);
    this.#bytes = new Float64Array(names.length);
  }

  /** Calls have ended, which took `ns` together. */
  book(index: number, failed: boolean, ns: number, calls = 1): void {
    this.#calls[index] = this.#calls[index]! + calls;
    if (failed) this.#errors[index] = this.#errors[index]! + calls;
    this.#ns[index] = this.#ns[index]! + ns;
  }

  /** Data that a function has moved. */
  moved(index: number, bytes: number): void {
    this.#bytes[index] = this.#bytes[index]! + bytes;
  }

  /** The report of all functions, each with who does it now. */
  report(servedBy: (name: Name) => ServedBy): Readonly<Record<Name, FunctionReport>> {
    const report = {} as Record<Name, FunctionReport>;
    this.#names.forEach((name, index) => {
      report[name] = {
        by: servedBy(name),
        calls: this.#calls[index]!,
        errors: this.#errors[index]!,
        ns: this.#ns[index]!,
        ...(this.#bytes[index]! > 0 && { bytes: this.#bytes[index]! }),
      };
    });
    return report;
  }
}

/**
 * Contents of a disk that are kept in memory, by units of one size. They can be frozen for a snapshot: what was frozen
 * stays as it was while the disk goes on, since a unit is copied before its first change.
 */

/** A unit that reads as zeroes and has no bytes of its own. */
export const ZERO_UNIT = new Uint8Array(0);

/** Units as they were at one instant; ZERO_UNIT where one is all zeroes. */
export interface FrozenUnits {
  readonly unitBytes: number;
  readonly units: ReadonlyMap<number, Uint8Array>;
  /** They are of no more use: changes need no copies for them. Idempotent. */
  release(): void;
}

export class UnitStore {
  readonly unitBytes: number;
  readonly #units = new Map<number, Uint8Array>();
  readonly #frozen = new Set<ReadonlyMap<number, Uint8Array>>();

  constructor(unitBytes: number) {
    this.unitBytes = unitBytes;
  }

  get size(): number {
    return this.#units.size;
  }

  keys(): IterableIterator<number> {
    return this.#units.keys();
  }

  has(index: number): boolean {
    return this.#units.has(index);
  }

  /** To read from. */
  get(index: number): Uint8Array | undefined {
    return this.#units.get(index);
  }

  /** To write to: nobody else has it. */
  mutable(index: number): Uint8Array | undefined {
    const unit = this.#units.get(index);
    if (unit === undefined || this.#frozen.size === 0) return unit;
    for (const units of this.#frozen) {
      if (units.get(index) !== unit) continue;
      const own = unit.slice();
      this.#units.set(index, own);
      return own;
    }
    return unit;
  }

  set(index: number, unit: Uint8Array): void {
    this.#units.set(index, unit);
  }

  delete(index: number): void {
    this.#units.delete(index);
  }

  clear(): void {
    this.#units.clear();
  }

  /** Costs a table of its units, and no copy of any. */
  freeze(): FrozenUnits {
    const units = new Map(this.#units);
    this.#frozen.add(units);
    return { unitBytes: this.unitBytes, units, release: () => void this.#frozen.delete(units) };
  }
}

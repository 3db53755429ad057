/**
 * Address ranges in ascending order, none overlapping another, and the search for the one that holds an address.
 * The bottom of the bus: it knows ranges and what stands at them, and never calls a device.
 */

/** [first, first + length) in port space or guest physical space. */
export interface AddressRange {
  readonly first: number;
  readonly length: number;
}

export class RangeTable<T extends AddressRange> {
  readonly #entries: T[] = [];
  /** Guests touch the same device many times in a row. */
  #lastHit: T | undefined;

  get entries(): readonly T[] {
    return this.#entries;
  }

  /** Takes an entry in, or returns the one that is in its way. */
  insert(entry: T): T | undefined {
    const end = entry.first + entry.length;
    const clash = this.#entries.find((other) => entry.first < other.first + other.length && other.first < end);
    if (clash) return clash;
    this.#entries.push(entry);
    this.#entries.sort((a, b) => a.first - b.first);
    return undefined;
  }

  remove(entry: T): void {
    const index = this.#entries.indexOf(entry);
    if (index >= 0) this.#entries.splice(index, 1);
    this.#lastHit = undefined;
  }

  /** The entry that holds `address`. */
  find(address: number): T | undefined {
    const last = this.#lastHit;
    if (last !== undefined && address >= last.first && address < last.first + last.length) return last;
    let low = 0;
    let high = this.#entries.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const entry = this.#entries[middle]!;
      if (address < entry.first) high = middle - 1;
      else if (address >= entry.first + entry.length) low = middle + 1;
      else return (this.#lastHit = entry);
    }
    return undefined;
  }
}

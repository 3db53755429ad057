/**
 * Keeps overlapping requests apart, of which one changes data: each waits for those that came before it and overlap,
 * so such requests take effect in the order of their arrival. It stands in the hot path of the provider: a request
 * that overlaps nothing costs a look into a table of counters.
 *
 * The table has a counter of readers and one of writers for each granule of 64 KiB, modulo its length. Only when it
 * shows a possible overlap the ranges themselves are compared. Ranges of many granules are counted apart.
 */

const GRANULE_BYTES = 64 * 1024;
const SLOTS = 1024;
/** A range of more granules than this is wide: its granules are not counted one by one. */
const MAX_GRANULES = 16;

/** A request with its range; the lock's own fields are the lock's business. */
export abstract class RangeEntry {
  from = 0;
  /** First byte after the range. */
  to = 0;
  /** It changes data. */
  exclusive = false;

  /** How many earlier entries it waits for. */
  blockers = 0;
  /** Later entries that wait for it. */
  dependents: RangeEntry[] | undefined;
  /** Where it stands in the list of entries. */
  position = -1;

  /** Called once when an entry that had to wait may go on. */
  abstract granted(): void;
}

export class RangeLock {
  readonly #readers = new Uint16Array(SLOTS);
  readonly #writers = new Uint16Array(SLOTS);
  #wideReaders = 0;
  #wideWriters = 0;
  /** Those that hold their range and those that wait, in no order. */
  readonly #entries: RangeEntry[] = [];
  #ready: RangeEntry[] = [];
  #granting = false;

  /** Entries that hold their range or wait for it. */
  get size(): number {
    return this.#entries.length;
  }

  /** True: go on at once. False: `entry.granted()` follows. The range is not empty. */
  enter(entry: RangeEntry): boolean {
    entry.blockers = 0;
    if (this.#entries.length > 0 && this.#mayOverlap(entry)) this.#findBlockers(entry);
    entry.position = this.#entries.length;
    this.#entries.push(entry);
    this.#count(entry, 1);
    return entry.blockers === 0;
  }

  /** The entry's request has ended: those that waited for it alone go on. */
  leave(entry: RangeEntry): void {
    const last = this.#entries.pop()!;
    if (last !== entry) {
      this.#entries[entry.position] = last;
      last.position = entry.position;
    }
    entry.position = -1;
    this.#count(entry, -1);
    const dependents = entry.dependents;
    if (dependents === undefined) return;
    entry.dependents = undefined;
    for (const dependent of dependents) if (--dependent.blockers === 0) this.#ready.push(dependent);
    if (!this.#granting && this.#ready.length > 0) this.#grant();
  }

  /** A loop, not a recursion: a granted request may end at once and set others free. */
  #grant(): void {
    this.#granting = true;
    for (let at = 0; at < this.#ready.length; at++) this.#ready[at]!.granted();
    this.#ready = [];
    this.#granting = false;
  }

  #mayOverlap(entry: RangeEntry): boolean {
    if (this.#wideWriters > 0 || (entry.exclusive && this.#wideReaders > 0)) return true;
    const first = Math.floor(entry.from / GRANULE_BYTES);
    const last = Math.floor((entry.to - 1) / GRANULE_BYTES);
    if (last - first >= MAX_GRANULES) return true;
    for (let granule = first; granule <= last; granule++) {
      const slot = granule % SLOTS;
      if (this.#writers[slot] !== 0 || (entry.exclusive && this.#readers[slot] !== 0)) return true;
    }
    return false;
  }

  #findBlockers(entry: RangeEntry): void {
    for (const other of this.#entries) {
      if (other.from >= entry.to || other.to <= entry.from || !(entry.exclusive || other.exclusive)) continue;
      entry.blockers++;
      (other.dependents ??= []).push(entry);
    }
  }

  #count(entry: RangeEntry, by: 1 | -1): void {
    const first = Math.floor(entry.from / GRANULE_BYTES);
    const last = Math.floor((entry.to - 1) / GRANULE_BYTES);
    if (last - first >= MAX_GRANULES) {
      if (entry.exclusive) this.#wideWriters += by;
      else this.#wideReaders += by;
      return;
    }
    const counters = entry.exclusive ? this.#writers : this.#readers;
    for (let granule = first; granule <= last; granule++) {
      const slot = granule % SLOTS;
      counters[slot] = counters[slot]! + by;
    }
  }
}

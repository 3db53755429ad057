/**
 * Which clusters of the file are metadata: the header, the L1 and the refcount table, L2 tables and refcount blocks. A
 * guest's data must never land there, whatever an image's tables say. Filled when the image is opened, where every
 * pointer of the two first-level tables is checked; grows with the tables that are made.
 */
import { imageError } from './failure.js';

export class MetadataMap {
  readonly #clusterBytes: number;
  /** Offsets of tables found when the image was opened, ascending. */
  #found: Float64Array = new Float64Array(0);
  readonly #made = new Set<number>();
  /** Ranges of whole clusters: from, to. */
  readonly #ranges: [number, number][] = [];

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
  }

  addRange(offset: number, lengthBytes: number): void {
    this.#ranges.push([offset, offset + Math.ceil(lengthBytes / this.#clusterBytes) * this.#clusterBytes]);
  }

  removeRange(offset: number): void {
    const index = this.#ranges.findIndex(([from]) => from === offset);
    if (index >= 0) this.#ranges.splice(index, 1);
  }

  add(offset: number): void {
    this.#made.add(offset);
  }

  /** True when the cluster at `offset` is metadata. */
  has(offset: number): boolean {
    for (const [from, to] of this.#ranges) if (offset >= from && offset < to) return true;
    if (this.#made.has(offset)) return true;
    let low = 0;
    let high = this.#found.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#found[middle]! < offset) low = middle + 1;
      else high = middle;
    }
    return this.#found[low] === offset;
  }

  /**
   * Takes the pointers of the L1 and the refcount table.
   *
   * @throws VmmError ERR_DISK_IMAGE for one that is not aligned, leaves the file, or meets other metadata.
   */
  fill(path: string, fileBytes: number, tables: readonly { field: string; pointers: readonly number[] }[]): void {
    let count = 0;
    for (const { field, pointers } of tables) {
      for (const [index, offset] of pointers.entries()) {
        if (offset === 0) continue;
        count++;
        const name = `${field}[${index}]`;
        if (offset % this.#clusterBytes !== 0) throw imageError(path, name, `${offset} is not aligned to clusters`);
        if (offset >= fileBytes || offset + this.#clusterBytes > fileBytes) {
          throw imageError(path, name, `${offset} leads behind the end of the file`);
        }
        if (this.has(offset)) throw imageError(path, name, `${offset} overlaps another table`);
      }
    }
    const all = new Float64Array(count);
    let next = 0;
    for (const { pointers } of tables) for (const offset of pointers) if (offset !== 0) all[next++] = offset;
    all.sort();
    const twice = all.findIndex((offset, index) => index > 0 && all[index - 1] === offset);
    if (twice >= 0) throw imageError(path, 'tables', `two of them lie at ${all[twice]!}`);
    this.#found = all;
  }
}

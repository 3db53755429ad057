/**
 * A set of pages of guest memory: one bit for each 4 KiB page, by offset into the mapping, as the kernel's dirty log
 * and user space's bitmap have them. Plain memory of one thread.
 */
import { groupCount, groupRuns, GROUP_BYTES, PAGES_PER_GROUP } from './groups.js';
import { PAGE_SIZE } from '../base/units.js';

const BITS = 32;

export class DirtyBitmap {
  readonly pages: number;
  readonly #words: Uint32Array;

  constructor(pages: number) {
    if (!Number.isSafeInteger(pages) || pages < 0) throw new RangeError(`pages: ${pages} is no number of pages`);
    this.pages = pages;
    this.#words = new Uint32Array(Math.ceil(pages / BITS));
  }

  has(page: number): boolean {
    return ((this.#words[Math.floor(page / BITS)] ?? 0) & (1 << (page % BITS))) !== 0;
  }

  /** How many pages are in it. */
  count(): number {
    let sum = 0;
    for (const word of this.#words) sum += bitsIn(word);
    return sum;
  }

  /** Adds the pages whose bits are set: bit 0 of `bits[0]` is `firstPage`. Bits past the last page are ignored. */
  addBits(firstPage: number, bits: Uint32Array): void {
    const words = this.#words;
    const shift = firstPage % BITS;
    let at = Math.floor(firstPage / BITS);
    for (let index = 0; index < bits.length && at < words.length; index++, at++) {
      const word = bits[index]!;
      if (word === 0) continue;
      words[at] = words[at]! | (word << shift);
      if (shift > 0 && at + 1 < words.length) words[at + 1] = words[at + 1]! | (word >>> (BITS - shift));
    }
    const past = this.pages % BITS;
    if (past !== 0) words[words.length - 1] = words[words.length - 1]! & ((1 << past) - 1);
  }

  addPages(firstPage: number, count: number): void {
    for (let page = firstPage; page < Math.min(firstPage + count, this.pages); page++) {
      const at = Math.floor(page / BITS);
      this.#words[at] = this.#words[at]! | (1 << (page % BITS));
    }
  }

  /** Adds what is in the other one, of the same size. */
  add(other: DirtyBitmap): void {
    if (other.pages !== this.pages) throw new RangeError(`a bitmap of ${other.pages} pages, not ${this.pages}`);
    const from = other.#words;
    const words = this.#words;
    for (let at = 0; at < words.length; at++) {
      const word = from[at]!;
      if (word !== 0) words[at] = words[at]! | word;
    }
  }

  /** The pages, ascending. */
  *[Symbol.iterator](): IterableIterator<number> {
    for (let at = 0; at < this.#words.length; at++) {
      for (let rest = this.#words[at]!; rest !== 0; rest &= rest - 1) yield at * BITS + 31 - Math.clz32(rest & -rest);
    }
  }

  hasGroup(group: number): boolean {
    // Sixteen pages: half a word.
    return ((this.#words[group >>> 1] ?? 0) & (0xffff << ((group & 1) * PAGES_PER_GROUP))) !== 0;
  }

  /** How many pages of each group are in it. */
  countByGroup(): Uint8Array {
    return Uint8Array.from({ length: groupCount(this.pages * PAGE_SIZE) }, (_, group) =>
      bitsIn((this.#words[group >>> 1]! >>> ((group & 1) * PAGES_PER_GROUP)) & 0xffff),
    );
  }

  /** The groups with a page in it, as runs for native code. */
  groupRuns(): Uint32Array {
    return groupRuns(groupCount(this.pages * PAGE_SIZE), (group) => this.hasGroup(group));
  }

  /** Bytes of the groups with a page in it. */
  groupBytes(): number {
    let groups = 0;
    const runs = this.groupRuns();
    for (let at = 1; at < runs.length; at += 2) groups += runs[at]!;
    return groups * GROUP_BYTES;
  }
}

function bitsIn(word: number): number {
  let rest = word - ((word >>> 1) & 0x5555_5555);
  rest = (rest & 0x3333_3333) + ((rest >>> 2) & 0x3333_3333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

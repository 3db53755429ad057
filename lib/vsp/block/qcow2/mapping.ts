/**
 * Where a guest's clusters are: the L1 table, held whole (at most 32 MiB), and L2 tables by pages of the cache. Entries
 * are checked when they are used. Changes are made in memory; the commit writes them.
 *
 * | L2 entry, bits | meaning                                                          |
 * |----------------|------------------------------------------------------------------|
 * | 63             | copied: the cluster's refcount is exactly 1, it may be changed   |
 * | 62             | compressed (refused)                                             |
 * | 56 - 61        | reserved                                                         |
 * | 9 - 55         | host offset, 0: none                                             |
 * | 1 - 8          | reserved                                                         |
 * | 0              | reads as zeroes, whatever lies at the offset                     |
 */
import { QCOW2_ENTRY_BYTES, Qcow2EntryHigh as High, Qcow2EntryLow as Low } from '../../../abi/qcow2.js';
import { Failure } from './failure.js';
import type { Header } from './header.js';
import type { ImageFile } from './image-file.js';
import { PageCache, type Page } from './page-cache.js';

export type ExtentKind = 'data' | 'zero' | 'unallocated';

/** Clusters in a row that can be treated as one: contiguous in the file where they have a place there. */
export interface Extent {
  readonly kind: ExtentKind;
  /** Host offset of the first byte asked for; 0 where there is none. A zero extent may have one (preallocated). */
  readonly hostOffset: number;
  readonly lengthBytes: number;
  readonly copied: boolean;
}

interface Entry {
  kind: ExtentKind;
  host: number;
  copied: boolean;
}

export class Mapping {
  readonly cache: PageCache;
  readonly #file: ImageFile;
  readonly #clusterBytes: number;
  readonly #isVersion2: boolean;
  readonly #perTable: number;
  readonly #perPage: number;
  readonly #l1: number[];
  #changed = new Set<number>();

  constructor(file: ImageFile, header: Header, l1: number[], cacheBytes: number) {
    this.cache = new PageCache(file, header.clusterBytes, cacheBytes);
    this.#file = file;
    this.#clusterBytes = header.clusterBytes;
    this.#isVersion2 = header.version === 2;
    this.#perTable = header.clusterBytes / QCOW2_ENTRY_BYTES;
    this.#perPage = this.cache.pageBytes / QCOW2_ENTRY_BYTES;
    this.#l1 = l1;
  }

  /** Offset of the page that holds the entry of a guest's cluster; 0 when there is no table. */
  #pageOffset(cluster: number): number {
    const table = this.#l1[Math.floor(cluster / this.#perTable)]!;
    if (table === 0) return 0;
    return table + Math.floor((cluster % this.#perTable) / this.#perPage) * this.cache.pageBytes;
  }

  hasTable(cluster: number): boolean {
    return this.#l1[Math.floor(cluster / this.#perTable)] !== 0;
  }

  setTable(cluster: number, offset: number): void {
    const index = Math.floor(cluster / this.#perTable);
    this.#l1[index] = offset;
    this.#changed.add(index);
  }

  /** Clusters from this one to the end of the page that holds its entry. */
  clustersInPage(cluster: number): number {
    return this.#perPage - (cluster % this.#perPage);
  }

  /**
   * The extent at a guest's offset, at most `lengthBytes`; undefined when its page has to be loaded first.
   *
   * @throws Failure 'corrupt', 'unsupported'
   */
  peek(offset: number, lengthBytes: number): Extent | undefined {
    const cluster = Math.floor(offset / this.#clusterBytes);
    const within = offset - cluster * this.#clusterBytes;
    const at = this.#pageOffset(cluster);
    if (at === 0) {
      const inTable = (this.#perTable - (cluster % this.#perTable)) * this.#clusterBytes - within;
      return { kind: 'unallocated', hostOffset: 0, lengthBytes: Math.min(lengthBytes, inTable), copied: false };
    }
    const page = this.cache.peek(at);
    if (!page) return undefined;
    const { kind, host, copied } = this.#decode(page, cluster);
    const last = Math.min(this.clustersInPage(cluster), Math.ceil((within + lengthBytes) / this.#clusterBytes));
    let count = 1;
    for (; count < last; count++) {
      const next = this.#decode(page, cluster + count);
      const expected = host === 0 ? 0 : host + count * this.#clusterBytes;
      if (next.kind !== kind || next.copied !== copied || next.host !== expected) break;
    }
    return {
      kind,
      hostOffset: host === 0 ? 0 : host + within,
      lengthBytes: Math.min(lengthBytes, count * this.#clusterBytes - within),
      copied,
    };
  }

  load(offset: number): Promise<void> {
    return this.cache.load(this.#pageOffset(Math.floor(offset / this.#clusterBytes)));
  }

  async lookup(offset: number, lengthBytes: number): Promise<Extent> {
    for (;;) {
      const extent = this.peek(offset, lengthBytes);
      if (extent) return extent;
      await this.load(offset);
    }
  }

  /** Whether the cluster's entry was found right (see verified), since its page was loaded. Its page is here. */
  isVerified(cluster: number): boolean {
    return this.cache.peek(this.#pageOffset(cluster))?.verified?.[cluster % this.#perPage] === 1;
  }

  verify(cluster: number): void {
    const page = this.cache.peek(this.#pageOffset(cluster));
    if (!page) return;
    page.verified ??= new Uint8Array(this.#perPage);
    page.verified[cluster % this.#perPage] = 1;
  }

  /**
   * Changes the entries of clusters that have a table, all in one page. `zero` with a host offset keeps the place; an
   * offset of 0 with kind 'unallocated' lets the backing file show through.
   */
  async set(cluster: number, count: number, kind: ExtentKind, hostOffset: number): Promise<void> {
    const page = await this.cache.page(this.#pageOffset(cluster));
    for (let index = 0; index < count; index++) {
      const at = ((cluster + index) % this.#perPage) * QCOW2_ENTRY_BYTES;
      const host = hostOffset === 0 ? 0 : hostOffset + index * this.#clusterBytes;
      page.view.setUint32(at, (host === 0 ? 0 : High.COPIED) + Math.floor(host / 2 ** 32));
      page.view.setUint32(at + 4, (host % 2 ** 32) + (kind === 'zero' ? Low.ZERO : 0));
      if (page.verified) page.verified[(cluster + index) % this.#perPage] = host === 0 ? 0 : 1;
    }
    this.cache.markDirty(page, (cluster % this.#perPage) * QCOW2_ENTRY_BYTES, count * QCOW2_ENTRY_BYTES);
  }

  /** For a commit: L1 entries that have changed. */
  takeL1(): { readonly index: number; readonly pointer: number }[] {
    const entries = [...this.#changed].map((index) => ({ index, pointer: this.#l1[index]! }));
    this.#changed = new Set();
    return entries;
  }

  putBackL1(entries: readonly { readonly index: number }[]): void {
    for (const { index } of entries) this.#changed.add(index);
  }

  #decode(page: Page, cluster: number): Entry {
    const at = (cluster % this.#perPage) * QCOW2_ENTRY_BYTES;
    const high = page.view.getUint32(at);
    const low = page.view.getUint32(at + 4);
    if ((high & High.COMPRESSED) !== 0) {
      throw new Failure(
        'unsupported',
        `${this.#file.path}: guest cluster ${cluster} is compressed, which is not supported`,
      );
    }
    const isZero = (low & Low.ZERO) !== 0;
    const host = (high & High.OFFSET) * 2 ** 32 + ((low & Low.OFFSET) >>> 0);
    const copied = (high & High.COPIED) !== 0;
    const problem =
      (high & High.L2_RESERVED) !== 0 || (low & Low.L2_RESERVED) !== 0 || (isZero && this.#isVersion2)
        ? 'has reserved bits set'
        : host % this.#clusterBytes !== 0
          ? 'is not aligned to clusters'
          : host >= this.#file.endBytes
            ? 'leads behind the end of the file'
            : host === 0 && copied
              ? 'leads to the header'
              : undefined;
    if (problem !== undefined) {
      throw new Failure('corrupt', `${this.#file.path}: L2 entry of guest cluster ${cluster} ${problem}`);
    }
    return { kind: isZero ? 'zero' : host === 0 ? 'unallocated' : 'data', host, copied };
  }
}

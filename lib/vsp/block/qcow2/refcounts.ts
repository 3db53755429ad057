/**
 * Host clusters: how often each is used, which are free, and the refcount table and blocks that say so. Changes are
 * made in memory (the page cache and the table here); the commit writes them in order. Callers of what changes hold
 * the image's allocation mutex.
 *
 * A new refcount block takes the first cluster of the area that it covers. When the refcount table is full, a larger one
 * is put at the start of an area, with the blocks of the areas that it reaches right behind it:
 *
 *     | ... old end | (free) | new table: n clusters | blocks: k clusters | free ...
 *                            ^ multiple of the clusters that one block covers
 */
import { QCOW2_ENTRY_BYTES, QCOW2_MAX_REFCOUNT_TABLE_BYTES } from '../../../abi/qcow2.js';
import { Failure } from './failure.js';
import type { Header } from './header.js';
import type { ImageFile } from './image-file.js';
import type { MetadataMap } from './metadata-map.js';
import { PageCache, type Page } from './page-cache.js';
import { getRefcount, setRefcount } from './refcount-block.js';

export interface Run {
  /** Host offset of the first cluster. */
  readonly offset: number;
  readonly clusters: number;
  /** Never used before and behind what the file held: it reads as zeroes. */
  readonly fresh: boolean;
}

/** What of the refcount table a commit has to write. */
export interface TableChange {
  readonly offset: number;
  /** Byte offsets in the file and the pointers there. */
  readonly entries: readonly { readonly index: number; readonly pointer: number }[];
  /** The table has moved: it is written whole, then the header, and what it leaves is freed. */
  readonly moved:
    { readonly clusters: number; readonly pointers: readonly number[]; readonly left: readonly Run[] } | undefined;
}

export class Refcounts {
  readonly cache: PageCache;
  readonly #file: ImageFile;
  readonly #metadata: MetadataMap;
  readonly #clusterBytes: number;
  readonly #bits: number;
  /** Clusters that one block covers. */
  readonly #perBlock: number;
  readonly #perPage: number;
  /** Offsets of the blocks; 0 where there is none. */
  #pointers: number[];
  #tableOffset: number;
  #tableClusters: number;
  #changed = new Set<number>();
  /** Tables that were replaced since the last commit, the header's first. */
  #left: Run[] = [];
  /** No cluster before it is free. */
  #cursor = 0;
  /** No cluster from here on was ever used. */
  #unused: number;

  constructor(file: ImageFile, header: Header, pointers: number[], metadata: MetadataMap, cacheBytes: number) {
    this.cache = new PageCache(file, header.clusterBytes, cacheBytes);
    this.#file = file;
    this.#metadata = metadata;
    this.#clusterBytes = header.clusterBytes;
    this.#bits = header.refcountBits;
    this.#perBlock = (header.clusterBytes * 8) / header.refcountBits;
    this.#perPage = (this.cache.pageBytes * 8) / header.refcountBits;
    this.#pointers = pointers;
    this.#tableOffset = header.refcountTableOffset;
    this.#tableClusters = header.refcountTableClusters;
    this.#unused = Math.ceil(file.endBytes / header.clusterBytes);
  }

  #pageOffset(cluster: number): number {
    const pointer = this.#pointers[Math.floor(cluster / this.#perBlock)] ?? 0;
    if (pointer === 0) return 0;
    return pointer + Math.floor((cluster % this.#perBlock) / this.#perPage) * this.cache.pageBytes;
  }

  /** The refcount of the cluster at a host offset; undefined when its page has to be loaded first (see load). */
  peek(hostOffset: number): number | undefined {
    const cluster = hostOffset / this.#clusterBytes;
    const at = this.#pageOffset(cluster);
    if (at === 0) return 0;
    const page = this.cache.peek(at);
    return page && getRefcount(page.view, this.#bits, cluster % this.#perPage);
  }

  load(hostOffset: number): Promise<void> {
    return this.cache.load(this.#pageOffset(hostOffset / this.#clusterBytes));
  }

  /** From 1 to `want` clusters in a row, each with a refcount of 1 from now on. */
  async allocate(want: number): Promise<Run> {
    for (;;) {
      await this.#needBlock(Math.floor(this.#cursor / this.#perBlock));
      const page = await this.cache.page(this.#pageOffset(this.#cursor));
      const first = this.#findFree(page);
      if (first === undefined) continue;
      let clusters = 1;
      const room = this.#perPage - (first % this.#perPage);
      while (
        clusters < Math.min(want, room) &&
        getRefcount(page.view, this.#bits, (first + clusters) % this.#perPage) === 0
      )
        clusters++;
      for (let cluster = first; cluster < first + clusters; cluster++) {
        if (!this.#metadata.has(cluster * this.#clusterBytes)) continue;
        throw new Failure(
          'corrupt',
          `${this.#file.path}: the refcount of a table at ${cluster * this.#clusterBytes} is 0`,
        );
      }
      // First the place, then the claim: a full file system leaves everything as it was.
      await this.#file.growTo((first + clusters) * this.#clusterBytes);
      const again = await this.cache.page(page.offset);
      for (let cluster = first; cluster < first + clusters; cluster++) this.#set(again, cluster, 1);
      const fresh = first >= this.#unused;
      this.#unused = Math.max(this.#unused, first + clusters);
      this.#cursor = first + clusters;
      return { offset: first * this.#clusterBytes, clusters, fresh };
    }
  }

  /** One cluster of zeroes for a table. */
  async allocateTable(): Promise<number> {
    const { offset } = await this.allocate(1);
    try {
      await this.#file.writeZeroes(offset, this.#clusterBytes);
    } catch (error) {
      await this.release(offset, 1);
      throw error;
    }
    this.#metadata.add(offset);
    return offset;
  }

  /** Of these runs, the parts with a refcount of 1: nobody uses them once they are released. */
  async lastUses(runs: readonly Run[]): Promise<Run[]> {
    const last: Run[] = [];
    for (const { offset, clusters } of runs) {
      for (let at = offset; at < offset + clusters * this.#clusterBytes; at += this.#clusterBytes) {
        if (this.#pageOffset(at / this.#clusterBytes) === 0) continue;
        while (this.peek(at) === undefined) await this.load(at);
        if (this.peek(at) !== 1) continue;
        const before = last.at(-1);
        if (before && before.offset + before.clusters * this.#clusterBytes === at) {
          last[last.length - 1] = { ...before, clusters: before.clusters + 1 };
        } else last.push({ offset: at, clusters: 1, fresh: false });
      }
    }
    return last;
  }

  /** One user less for each of the clusters. @throws Failure 'corrupt' when one has none. */
  async release(offset: number, clusters: number): Promise<void> {
    const first = offset / this.#clusterBytes;
    for (let cluster = first; cluster < first + clusters; cluster++) {
      const at = this.#pageOffset(cluster);
      const page = at === 0 ? undefined : await this.cache.page(at);
      const count = page ? getRefcount(page.view, this.#bits, cluster % this.#perPage) : 0;
      if (!page || count === 0) {
        throw new Failure(
          'corrupt',
          `${this.#file.path}: the refcount of a used cluster at ${cluster * this.#clusterBytes} is 0`,
        );
      }
      this.#set(page, cluster, count - 1);
      if (count === 1) this.#cursor = Math.min(this.#cursor, cluster);
    }
  }

  /** For a commit: what of the table has changed since the last one. Undefined: nothing. */
  takeTable(): TableChange | undefined {
    if (this.#changed.size === 0 && this.#left.length === 0) return undefined;
    const entries = [...this.#changed].map((index) => ({ index, pointer: this.#pointers[index]! }));
    const moved =
      this.#left.length > 0
        ? { clusters: this.#tableClusters, pointers: [...this.#pointers], left: this.#left }
        : undefined;
    this.#changed = new Set();
    this.#left = [];
    return { offset: this.#tableOffset, entries, moved };
  }

  /** The commit failed. */
  putBack(change: TableChange): void {
    for (const { index } of change.entries) this.#changed.add(index);
    this.#left.unshift(...(change.moved?.left ?? []));
  }

  #findFree(page: Page): number | undefined {
    const base = this.#cursor - (this.#cursor % this.#perPage);
    for (let index = this.#cursor % this.#perPage; index < this.#perPage; index++) {
      if (getRefcount(page.view, this.#bits, index) === 0) return base + index;
    }
    this.#cursor = base + this.#perPage;
    return undefined;
  }

  #set(page: Page, cluster: number, value: number): void {
    const index = cluster % this.#perPage;
    setRefcount(page.view, this.#bits, index, value);
    this.cache.markDirty(page, Math.floor((index * this.#bits) / 8), Math.max(1, this.#bits / 8));
  }

  async #needBlock(block: number): Promise<void> {
    if ((this.#pointers[block] ?? 0) !== 0) return;
    if (block >= (this.#tableClusters * this.#clusterBytes) / QCOW2_ENTRY_BYTES) await this.#growTable(block);
    // The larger table may have brought the block along.
    if ((this.#pointers[block] ?? 0) === 0)
      await this.#makeBlocks(block * this.#perBlock, 1, block * this.#perBlock, 1);
  }

  /** Makes the blocks for areas from that of `first` on, in clusters from `at` on, and marks `used` clusters from `first`. */
  async #makeBlocks(at: number, blocks: number, first: number, used: number): Promise<void> {
    for (let cluster = first; cluster < first + used; cluster++) {
      if (!this.#metadata.has(cluster * this.#clusterBytes)) continue;
      throw new Failure(
        'corrupt',
        `${this.#file.path}: a table at ${cluster * this.#clusterBytes} has no refcount block`,
      );
    }
    const offset = at * this.#clusterBytes;
    await this.#file.growTo((first + used) * this.#clusterBytes);
    await this.#file.writeZeroes(offset, blocks * this.#clusterBytes);
    for (let index = 0; index < blocks; index++) {
      const block = Math.floor(first / this.#perBlock) + index;
      this.#pointers[block] = offset + index * this.#clusterBytes;
      this.#changed.add(block);
      this.#metadata.add(offset + index * this.#clusterBytes);
    }
    for (let index = 0; index < this.#pointers.length; index++) this.#pointers[index] ??= 0;
    for (let cluster = first; cluster < first + used; cluster++) {
      this.#set(await this.cache.page(this.#pageOffset(cluster)), cluster, 1);
    }
    this.#unused = Math.max(this.#unused, first + used);
  }

  async #growTable(block: number): Promise<void> {
    const perCluster = this.#clusterBytes / QCOW2_ENTRY_BYTES;
    // The table comes behind everything, in an area that no block covers yet.
    const first = Math.max(block, Math.ceil(this.#unused / this.#perBlock), this.#pointers.length) * this.#perBlock;
    let clusters = this.#tableClusters * 2;
    let blocks = 1;
    for (;;) {
      const lastBlock = first / this.#perBlock + blocks - 1;
      if (clusters * perCluster <= lastBlock) clusters *= 2;
      else if (blocks * this.#perBlock < clusters + blocks) blocks++;
      else break;
    }
    if (clusters * this.#clusterBytes > QCOW2_MAX_REFCOUNT_TABLE_BYTES) {
      throw new Failure('no-space', `${this.#file.path}: the refcount table may not grow beyond 8 MiB`);
    }
    await this.#file.growTo((first + clusters + blocks) * this.#clusterBytes);
    await this.#file.writeZeroes(first * this.#clusterBytes, clusters * this.#clusterBytes);
    await this.#makeBlocks(first + clusters, blocks, first, clusters + blocks);
    this.#left.push({ offset: this.#tableOffset, clusters: this.#tableClusters, fresh: false });
    this.#tableOffset = first * this.#clusterBytes;
    this.#tableClusters = clusters;
    this.#metadata.addRange(this.#tableOffset, clusters * this.#clusterBytes);
  }
}

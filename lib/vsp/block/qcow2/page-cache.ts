/**
 * A bounded write-back cache of metadata (L2 tables, refcount blocks) in pages of at most 16 KiB, so that a table of a
 * 2 MiB cluster is not held whole for one entry. Nothing is written here: a commit takes what is dirty and writes it in
 * order. A page that is dirty or being written is never evicted.
 *
 * Write-back, because every allocating write changes a refcount and an L2 entry, and making these durable in order
 * costs two syncs: once for each flush of the guest instead of once for each write.
 */
import { HostVector } from '../../../memory/io-vector.js';
import { Failure } from './failure.js';
import type { ImageFile } from './image-file.js';

export interface Page {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Bytes changed since the last commit took them; empty when from >= to. */
  dirtyFrom: number;
  dirtyTo: number;
  /** Writes of it on the way. */
  writing: number;
  /** L2 only: entries whose cluster was found to be ours alone since the page was loaded. */
  verified: Uint8Array | undefined;
}

/** A part of a page that a commit writes: a copy, the page may change meanwhile. */
export interface DirtyPart {
  readonly page: Page;
  readonly from: number;
  readonly bytes: Uint8Array;
}

const SECTOR = 512;

export class PageCache {
  readonly pageBytes: number;
  readonly #file: ImageFile;
  readonly #limit: number;
  /** By offset; the least recently used first. */
  readonly #pages = new Map<number, Page>();
  readonly #loading = new Map<number, Promise<void>>();
  #dirty = 0;

  constructor(file: ImageFile, clusterBytes: number, limitBytes: number) {
    this.#file = file;
    this.pageBytes = Math.min(clusterBytes, 16 * 1024);
    this.#limit = Math.max(16, Math.floor(limitBytes / this.pageBytes));
  }

  /** True when a commit should come before more becomes dirty. */
  get isPressed(): boolean {
    return this.#dirty * 2 >= this.#limit;
  }

  get pageCount(): number {
    return this.#pages.size;
  }

  /** The page at `offset` (aligned) when it is here. */
  peek(offset: number): Page | undefined {
    const page = this.#pages.get(offset);
    if (page) {
      this.#pages.delete(offset);
      this.#pages.set(offset, page);
    }
    return page;
  }

  /** Brings a page in; it may be gone again when the caller goes on: peek in a loop. */
  load(offset: number): Promise<void> {
    let loading = this.#loading.get(offset);
    if (!loading) {
      loading = this.#load(offset).finally(() => this.#loading.delete(offset));
      this.#loading.set(offset, loading);
    }
    return loading;
  }

  async page(offset: number): Promise<Page> {
    for (;;) {
      const page = this.peek(offset);
      if (page) return page;
      await this.load(offset);
    }
  }

  async #load(offset: number): Promise<void> {
    if (offset + this.pageBytes > this.#file.endBytes) {
      throw new Failure('corrupt', `${this.#file.path}: a table at ${offset} lies behind the end of the file`);
    }
    const bytes = new Uint8Array(this.pageBytes);
    await this.#file.read(offset, new HostVector(bytes));
    this.#insert(offset, bytes);
  }

  #insert(offset: number, bytes: Uint8Array): void {
    if (this.#pages.has(offset)) return;
    for (const [key, page] of this.#pages) {
      if (this.#pages.size < this.#limit) break;
      if (page.dirtyFrom >= page.dirtyTo && page.writing === 0) this.#pages.delete(key);
    }
    const view = new DataView(bytes.buffer);
    this.#pages.set(offset, {
      offset,
      bytes,
      view,
      dirtyFrom: 0,
      dirtyTo: 0,
      writing: 0,
      verified: undefined,
    });
  }

  /** The table at `offset` was made anew: what is here of the cluster's former life is forgotten. */
  forget(offset: number, lengthBytes: number): void {
    for (let at = offset; at < offset + lengthBytes; at += this.pageBytes) this.#pages.delete(at);
  }

  markDirty(page: Page, from: number, lengthBytes: number): void {
    const clean = page.dirtyFrom >= page.dirtyTo;
    if (clean) this.#dirty++;
    page.dirtyFrom = clean ? from : Math.min(page.dirtyFrom, from);
    page.dirtyTo = clean ? from + lengthBytes : Math.max(page.dirtyTo, from + lengthBytes);
  }

  /** Hands all that is dirty to a commit, which ends with `written`. */
  takeDirty(): DirtyPart[] {
    const parts: DirtyPart[] = [];
    if (this.#dirty === 0) return parts;
    for (const page of this.#pages.values()) {
      if (page.dirtyFrom >= page.dirtyTo) continue;
      const from = Math.floor(page.dirtyFrom / SECTOR) * SECTOR;
      const to = Math.ceil(page.dirtyTo / SECTOR) * SECTOR;
      parts.push({ page, from, bytes: page.bytes.slice(from, to) });
      page.dirtyFrom = page.dirtyTo = 0;
      page.writing++;
    }
    this.#dirty = 0;
    return parts;
  }

  /** The commit is over; with `failed` its parts are dirty again. */
  written(parts: readonly DirtyPart[], failed: boolean): void {
    for (const { page, from, bytes } of parts) {
      page.writing--;
      if (failed) this.markDirty(page, from, bytes.length);
    }
  }
}

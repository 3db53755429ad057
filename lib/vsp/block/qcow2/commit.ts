/**
 * The one place that writes metadata, in an order in which a cut at any point leaves a consistent image, whichever of the
 * writes since the last sync reached the medium:
 *
 *     refcount blocks (and, before: data, zeroed new tables)        -- sync
 *     refcount table entries; or a moved table -- sync -- header    -- sync, when there are any
 *     L2 entries                                                    -- sync
 *     L1 entries                                                    -- sync, when there are any
 *     only now: what these no longer name is given back, and its refcounts fall in memory, for the next commit
 *
 * So a reference on the medium always leads to something written and counted; at worst clusters are counted that
 * nothing names (leaked). A failed commit leaves what it took dirty, for the next one.
 */
import { QCOW2_ENTRY_BYTES, Qcow2EntryHigh, Qcow2Header } from '../../../abi/qcow2.js';
import { HostVector } from '../../../memory/io-vector.js';
import type { Header } from './header.js';
import type { ImageFile } from './image-file.js';
import type { Mapping } from './mapping.js';
import type { MetadataMap } from './metadata-map.js';
import type { Generations, Mutex } from './mutex.js';
import type { DirtyPart } from './page-cache.js';
import type { Refcounts, Run, TableChange } from './refcounts.js';

/** Clusters that an entry in memory no longer names. */
interface Freed {
  readonly offset: number;
  readonly clusters: number;
  readonly generation: number;
}

export interface CommitParts {
  readonly file: ImageFile;
  readonly header: Header;
  readonly mapping: Mapping;
  readonly refcounts: Refcounts;
  readonly metadata: MetadataMap;
  /** Held by whoever allocates. */
  readonly allocation: Mutex;
  /** Requests that use data clusters. */
  readonly users: Generations;
}

export class Committer {
  readonly #parts: CommitParts;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #freed: Freed[] = [];
  /** No entry on the medium names these any more; requests in flight may still use them. */
  #unnamed: Freed[] = [];

  constructor(parts: CommitParts) {
    this.#parts = parts;
  }

  /** The caller has just taken the last entry that names them out of the mapping, in memory. */
  free(offset: number, clusters: number): void {
    this.#freed.push({ offset, clusters, generation: this.#parts.users.turn() });
  }

  /** True while a commit would change refcounts: after the last one of a close, nothing is leaked. */
  get hasFreed(): boolean {
    return this.#freed.length + this.#unnamed.length > 0;
  }

  /** Makes durable all that was done before the call. Calls that wait for the same commit share it. */
  run(): Promise<void> {
    if (!this.#running) return this.#start();
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#start();
      });
    return this.#next;
  }

  #start(): Promise<void> {
    const running = this.#once().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #once(): Promise<void> {
    const { mapping, refcounts, file, allocation, metadata } = this.#parts;
    // No allocation is half done while the parts are taken.
    const taken = await allocation.run(() => ({
      blocks: refcounts.cache.takeDirty(),
      table: refcounts.takeTable(),
      tables: mapping.cache.takeDirty(),
      l1: mapping.takeL1(),
      freed: this.#freed.splice(0),
    }));
    let failed = true;
    try {
      await this.#writePages(taken.blocks);
      await file.sync();
      if (taken.table) await this.#writeTable(taken.table);
      if (taken.tables.length > 0) {
        await this.#writePages(taken.tables);
        await file.sync();
      }
      if (taken.l1.length > 0) {
        // L2 tables are made here, and used once.
        const entries = taken.l1.map(({ index, pointer }) => ({ index, pointer, high: Qcow2EntryHigh.COPIED }));
        await this.#writeEntries(this.#parts.header.l1Offset, entries);
        await file.sync();
      }
      failed = false;
    } finally {
      refcounts.cache.written(taken.blocks, failed);
      mapping.cache.written(taken.tables, failed);
      if (failed) {
        if (taken.table) refcounts.putBack(taken.table);
        mapping.putBackL1(taken.l1);
        this.#freed.unshift(...taken.freed);
      }
    }
    this.#unnamed.push(...taken.freed);
    for (const old of taken.table?.moved?.left ?? []) {
      metadata.removeRange(old.offset);
      this.#unnamed.push({ ...old, generation: -1 });
    }
    await this.#release();
  }

  async #writePages(parts: readonly DirtyPart[]): Promise<void> {
    const { file } = this.#parts;
    await Promise.all(parts.map(({ page, from, bytes }) => file.write(page.offset + from, new HostVector(bytes))));
  }

  async #writeEntries(
    base: number,
    entries: readonly { index: number; pointer: number; high?: number }[],
  ): Promise<void> {
    const writes = entries.map(({ index, pointer, high }) =>
      this.#parts.file.write(base + index * QCOW2_ENTRY_BYTES, new HostVector(bigEndian64(pointer, high))),
    );
    await Promise.all(writes);
  }

  async #writeTable(change: TableChange): Promise<void> {
    const { file } = this.#parts;
    if (!change.moved) {
      await this.#writeEntries(change.offset, change.entries);
      return file.sync();
    }
    const { clusters, pointers } = change.moved;
    const bytes = new Uint8Array(clusters * this.#parts.header.clusterBytes);
    const view = new DataView(bytes.buffer);
    for (const [index, pointer] of pointers.entries()) view.setBigUint64(index * QCOW2_ENTRY_BYTES, BigInt(pointer));
    await file.write(change.offset, new HostVector(bytes));
    await file.sync();
    // Offset and size stand side by side, in one sector: the medium has both or none.
    const fields = new Uint8Array(12);
    fields.set(bigEndian64(change.offset));
    new DataView(fields.buffer).setUint32(8, clusters);
    await file.write(Qcow2Header.REFCOUNT_OFFSET, new HostVector(fields));
    await file.sync();
  }

  /** Gives back what nobody names or uses any more: first the space, then the number. */
  async #release(): Promise<void> {
    const { users, file, header, refcounts, allocation } = this.#parts;
    const ready = this.#unnamed.filter(({ generation }) => users.isOver(generation));
    if (ready.length === 0) return;
    this.#unnamed = this.#unnamed.filter((freed) => !ready.includes(freed));
    const runs = joined(ready, header.clusterBytes);
    // Other entries may name a cluster that is counted twice: its bytes stay.
    const last = await allocation.run(() => refcounts.lastUses(runs));
    await Promise.all(last.map(({ offset, clusters }) => file.punch(offset, clusters * header.clusterBytes)));
    await allocation.run(async () => {
      for (const { offset, clusters } of runs) await refcounts.release(offset, clusters);
    });
  }
}

function joined(freed: readonly Freed[], clusterBytes: number): Run[] {
  const runs: Run[] = [];
  for (const { offset, clusters } of [...freed].sort((a, b) => a.offset - b.offset)) {
    const last = runs.at(-1);
    if (last && last.offset + last.clusters * clusterBytes === offset) {
      runs[runs.length - 1] = { ...last, clusters: last.clusters + clusters };
    } else runs.push({ offset, clusters, fresh: false });
  }
  return runs;
}

function bigEndian64(value: number, high = 0): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setUint32(0, Math.floor(value / 2 ** 32) + high);
  new DataView(bytes.buffer).setUint32(4, value % 2 ** 32);
  return bytes;
}

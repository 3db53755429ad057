/**
 * Discard and write-zeroes. Whole clusters change their entry only; of a cluster that is not covered whole, discard
 * leaves everything (old data is what it may show) and write-zeroes writes zeroes.
 *
 * | entry before          | discard                      | write-zeroes, may unmap | write-zeroes, keep the place |
 * |-----------------------|------------------------------|-------------------------|------------------------------|
 * | data                  | zero with a backing file,    | zero                    | zero, preallocated           |
 * | zero, preallocated    | else unallocated             | as it is                | as it is                     |
 * | zero                  | as it is                     | as it is                | as it is                     |
 * | unallocated, backed   | as it is: takes no space     | zero                    | zero                         |
 * | unallocated, else     | as it is                     | as it is                | as it is                     |
 */
import { HostVector } from '../../../memory/io-vector.js';
import { Failure } from './failure.js';
import type { Extent } from './mapping.js';
import type { Writer, WriterParts } from './writer.js';

/** What becomes of an extent of whole clusters; undefined: it stays. */
type Change = { readonly kind: 'zero' | 'unallocated'; readonly keepsPlace: boolean } | undefined;

export class Zeroes {
  readonly #parts: WriterParts;
  readonly #writer: Writer;
  readonly #clusterBytes: number;
  readonly #hasBacking: boolean;

  constructor(parts: WriterParts, writer: Writer, hasBacking: boolean) {
    this.#parts = parts;
    this.#writer = writer;
    this.#clusterBytes = parts.header.clusterBytes;
    this.#hasBacking = hasBacking;
  }

  async discard(offset: number, lengthBytes: number): Promise<void> {
    const { from, to } = this.#whole(offset, lengthBytes);
    const kind = this.#hasBacking ? 'zero' : 'unallocated';
    await this.#eachExtent(from, to, ({ hostOffset }) => (hostOffset === 0 ? undefined : { kind, keepsPlace: false }));
  }

  async writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean): Promise<void> {
    const end = offset + lengthBytes;
    const { from, to } = this.#whole(offset, lengthBytes);
    if (from >= to) {
      const border = Math.min(end, Math.ceil((offset + 1) / this.#clusterBytes) * this.#clusterBytes);
      await this.#partOfCluster(offset, border);
      await this.#partOfCluster(border, end);
      return;
    }
    await this.#partOfCluster(offset, from);
    await this.#eachExtent(from, to, ({ kind }, at) => {
      if (kind === 'data') return { kind: 'zero', keepsPlace: !mayUnmap };
      const shows = kind === 'unallocated' && this.#parts.reader.backedBytes(at, 1) > 0;
      return shows ? { kind: 'zero', keepsPlace: false } : undefined;
    });
    await this.#partOfCluster(to, end);
  }

  /** The clusters that a range covers whole; the disk's last one may be cut by its end. */
  #whole(offset: number, lengthBytes: number): { from: number; to: number } {
    const end = offset + lengthBytes;
    const from = Math.ceil(offset / this.#clusterBytes) * this.#clusterBytes;
    const to = end === this.#parts.header.sizeBytes ? end : Math.floor(end / this.#clusterBytes) * this.#clusterBytes;
    return { from, to };
  }

  async #eachExtent(from: number, to: number, decide: (extent: Extent, at: number) => Change): Promise<void> {
    for (let at = from; at < to;) {
      await this.#writer.room();
      const extent = this.#writer.peekFree(at, to - at);
      if (!extent) {
        await this.#writer.ready(at);
        continue;
      }
      const change = decide(extent, at);
      if (change === undefined) {
        at += extent.lengthBytes;
        continue;
      }
      const own = this.#writer.isOwn(extent, at);
      if (own === undefined) {
        await this.#writer.loadRefcounts(extent, at);
        continue;
      }
      at += await this.#change(extent, at, change, own);
    }
  }

  /** Returns how much of the extent was changed. */
  async #change(extent: Extent, at: number, change: NonNullable<Change>, own: boolean): Promise<number> {
    const { mapping, claims, committer, allocation } = this.#parts;
    const cluster = at / this.#clusterBytes;
    const count = Math.min(Math.ceil(extent.lengthBytes / this.#clusterBytes), mapping.clustersInPage(cluster));
    await claims.hold(cluster, count, async () => {
      await allocation.run(() => this.#writer.needTable(cluster));
      const keeps = change.keepsPlace && own;
      await mapping.set(cluster, count, change.kind, keeps ? extent.hostOffset : 0);
      if (!keeps && extent.hostOffset !== 0) committer.free(extent.hostOffset, count);
    });
    return Math.min(extent.lengthBytes, count * this.#clusterBytes);
  }

  async #partOfCluster(from: number, to: number): Promise<void> {
    while (from < to) {
      const extent = this.#writer.peekFree(from, to - from);
      if (!extent) {
        await this.#writer.ready(from);
        continue;
      }
      const shows =
        extent.kind === 'data' ||
        (extent.kind === 'unallocated' && this.#parts.reader.backedBytes(from, to - from) > 0);
      if (!shows) return;
      const zeroes = new HostVector(new Uint8Array(to - from));
      return new Promise((resolve, reject) =>
        this.#writer.writeThen(from, zeroes, (failure) =>
          failure === undefined ? resolve() : reject(failure instanceof Error ? failure : new Failure('io', 'write')),
        ),
      );
    }
  }
}

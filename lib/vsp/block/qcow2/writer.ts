/**
 * Writes of an image. What has a cluster of its own is written in place; what has not gets one: the whole cluster is
 * written (with what showed through before around the guest's data), then its entry is changed in memory. The commit
 * makes it durable.
 */
import { HostVector, type IoVector } from '../../../memory/io-vector.js';
import type { Claims } from './claims.js';
import type { CommitParts, Committer } from './commit.js';
import { Failure } from './failure.js';
import type { Extent } from './mapping.js';
import { settled, type Reader } from './reader.js';

export interface WriterParts extends CommitParts {
  readonly reader: Reader;
  readonly committer: Committer;
  readonly claims: Claims;
}

export class Writer {
  readonly #parts: WriterParts;
  readonly #clusterBytes: number;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#clusterBytes = parts.header.clusterBytes;
  }

  writeThen(offset: number, data: IoVector, done: (failure: unknown) => void): void {
    const generation = this.#parts.users.enter();
    const end = (failure: unknown): void => {
      this.#parts.users.leave(generation);
      done(failure);
    };
    let extent: Extent | undefined;
    try {
      extent = this.peekFree(offset, data.lengthBytes);
      if (extent?.lengthBytes === data.lengthBytes && extent.kind === 'data' && this.isOwn(extent, offset) === true) {
        return this.#parts.file.writeThen(extent.hostOffset, data, end);
      }
    } catch (error) {
      return end(error);
    }
    this.#write(offset, data).then(() => end(undefined), end);
  }

  /** The extent at `offset` as far as nobody else changes it; undefined when something has to be awaited: see ready. */
  peekFree(offset: number, lengthBytes: number): Extent | undefined {
    const { mapping, claims } = this.#parts;
    const cluster = Math.floor(offset / this.#clusterBytes);
    if (claims.of(cluster)) return undefined;
    const extent = mapping.peek(offset, lengthBytes);
    if (!extent) return undefined;
    const within = offset - cluster * this.#clusterBytes;
    const count = Math.ceil((within + extent.lengthBytes) / this.#clusterBytes);
    const free = claims.free(cluster, count);
    if (free === count) return extent;
    return { ...extent, lengthBytes: free * this.#clusterBytes - within };
  }

  /** Waits for what peekFree lacked. */
  async ready(offset: number): Promise<void> {
    const { mapping, claims } = this.#parts;
    const claim = claims.of(Math.floor(offset / this.#clusterBytes));
    if (claim) await claim;
    else await mapping.load(offset);
  }

  /**
   * Whether the extent's clusters may be changed where they are. Undefined when a refcount has to be loaded first.
   *
   * @throws Failure 'corrupt' when one is metadata, or is marked as ours alone and is not
   */
  isOwn(extent: Extent, offset: number): boolean | undefined {
    if (extent.hostOffset === 0) return false;
    const { mapping, metadata, refcounts, file } = this.#parts;
    const first = Math.floor(offset / this.#clusterBytes);
    const last = Math.floor((offset + extent.lengthBytes - 1) / this.#clusterBytes);
    let host = extent.hostOffset - (offset - first * this.#clusterBytes);
    for (let cluster = first; cluster <= last; cluster++, host += this.#clusterBytes) {
      if (extent.copied && mapping.isVerified(cluster)) continue;
      // Also of one that is not changed but given back: a hole would be punched into a table.
      if (metadata.has(host)) throw new Failure('corrupt', `${file.path}: guest cluster ${cluster} lies on metadata`);
      if (!extent.copied) continue;
      const count = refcounts.peek(host);
      if (count === undefined) return undefined;
      if (count !== 1) {
        throw new Failure('corrupt', `${file.path}: the refcount of guest cluster ${cluster} is ${count} instead of 1`);
      }
      mapping.verify(cluster);
    }
    return extent.copied;
  }

  /** Loads the refcounts that isOwn lacked. */
  async loadRefcounts(extent: Extent, offset: number): Promise<void> {
    const first = Math.floor(offset / this.#clusterBytes);
    const last = Math.floor((offset + extent.lengthBytes - 1) / this.#clusterBytes);
    let host = extent.hostOffset - (offset - first * this.#clusterBytes);
    for (let cluster = first; cluster <= last; cluster++, host += this.#clusterBytes) {
      if (this.#parts.refcounts.peek(host) === undefined) return this.#parts.refcounts.load(host);
    }
  }

  /** Gives the caches air before more becomes dirty. Not to be called with the allocation mutex held. */
  async room(): Promise<void> {
    const { mapping, refcounts, committer } = this.#parts;
    if (mapping.cache.isPressed || refcounts.cache.isPressed) await committer.run();
  }

  /** Makes the L2 table of a guest's cluster where there is none; the allocation mutex is held. */
  async needTable(cluster: number): Promise<void> {
    const { mapping, refcounts } = this.#parts;
    if (!mapping.hasTable(cluster)) mapping.setTable(cluster, await refcounts.allocateTable());
  }

  async #write(offset: number, data: IoVector): Promise<void> {
    const jobs: Promise<void>[] = [];
    try {
      for (let at = 0; at < data.lengthBytes;) {
        const from = offset + at;
        const extent = this.peekFree(from, data.lengthBytes - at);
        if (!extent) {
          await this.ready(from);
          continue;
        }
        const own = this.isOwn(extent, from);
        if (own === undefined) {
          await this.loadRefcounts(extent, from);
          continue;
        }
        const part = data.slice(at, extent.lengthBytes);
        if (own && extent.kind === 'data') jobs.push(this.#parts.file.write(extent.hostOffset, part));
        else jobs.push(this.#allocate(from, part, extent, own));
        at += extent.lengthBytes;
      }
    } catch (error) {
      jobs.push(Promise.reject(error instanceof Error ? error : new Failure('io', String(error))));
    }
    await settled(jobs);
  }

  /** Gives new clusters to an extent; with `own` it has preallocated ones, whose content is not valid. */
  #allocate(offset: number, data: IoVector, extent: Extent, own: boolean): Promise<void> {
    const { mapping, refcounts, allocation, committer, claims } = this.#parts;
    const size = this.#clusterBytes;
    const first = Math.floor(offset / size);
    const count = Math.floor((offset + data.lengthBytes - 1) / size) - first + 1;
    const oldHost = extent.hostOffset === 0 ? 0 : extent.hostOffset - (offset - first * size);
    return claims.hold(first, count, async () => {
      for (let done = 0; done < count;) {
        await this.room();
        const cluster = first + done;
        const want = Math.min(count - done, mapping.clustersInPage(cluster));
        const run = own
          ? { offset: oldHost + done * size, clusters: want, fresh: false }
          : await allocation.run(async () => {
              await this.needTable(cluster);
              return refcounts.allocate(want);
            });
        const old = oldHost === 0 ? 0 : oldHost + done * size;
        try {
          const from = Math.max(offset, cluster * size);
          const to = Math.min(offset + data.lengthBytes, (cluster + run.clusters) * size);
          const part = data.slice(from - offset, to - from);
          await this.#fill(cluster * size, run.offset, run.clusters * size, from, part, {
            zeroes: extent.kind === 'zero',
            oldHost: extent.kind === 'data' ? old : 0,
            fresh: run.fresh,
          });
          await mapping.set(cluster, run.clusters, 'data', run.offset);
        } catch (error) {
          if (!own) await allocation.run(() => refcounts.release(run.offset, run.clusters));
          throw error;
        }
        if (!own && old !== 0) committer.free(old, run.clusters);
        done += run.clusters;
      }
    });
  }

  /** Writes whole new clusters: the guest's data, and around it what these clusters showed before. */
  async #fill(
    guest: number,
    host: number,
    lengthBytes: number,
    from: number,
    data: IoVector,
    old: { zeroes: boolean; oldHost: number; fresh: boolean },
  ): Promise<void> {
    const to = from + data.lengthBytes;
    const { file } = this.#parts;
    await settled([
      this.#surround(guest, host, guest, from, old),
      file.write(host + from - guest, data),
      this.#surround(guest, host, to, guest + lengthBytes, old),
    ]);
  }

  async #surround(
    guest: number,
    host: number,
    from: number,
    to: number,
    old: { zeroes: boolean; oldHost: number; fresh: boolean },
  ): Promise<void> {
    if (from === to) return;
    const { file, reader, header } = this.#parts;
    const shown = Math.max(0, Math.min(to, header.sizeBytes) - from);
    const backed = old.zeroes || old.oldHost !== 0 ? 0 : reader.backedBytes(from, shown);
    if (old.oldHost === 0 && backed === 0) {
      if (!old.fresh) await file.writeZeroes(host + from - guest, to - from);
      return;
    }
    const bytes = new HostVector(new Uint8Array(to - from));
    if (old.oldHost !== 0) await file.read(old.oldHost + from - guest, bytes);
    else {
      await new Promise<void>((resolve, reject) =>
        reader.readBackingThen(from, bytes.slice(0, backed), (failure) =>
          failure === undefined ? resolve() : reject(failure instanceof Error ? failure : new Failure('io', 'read')),
        ),
      );
    }
    await file.write(host + from - guest, bytes);
  }
}

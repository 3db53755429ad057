/**
 * A disk and a snapshot's instant: what of a disk belongs to the snapshot, and how the machine goes on without changing it.
 *
 *   raw, qcow2, writable   an empty qcow2 image over it, beside it: the machine goes on in that; the file below is the
 *                          snapshot's from then on, and changed no more. PATH.GENERATION.qcow2, mode 0600; it stays
 *                          when the machine is closed, since it is the disk now
 *   in memory, overlays    frozen, and written to a file of the snapshot's while the machine goes on
 *   read-only              a reference with size and time of change
 *   block device, writable, and anything else
 *                          refused by name
 *
 *   begin (machine runs: image made, flush) -> take (at rest) -> durable (machine runs), release where that was in vain
 *                                          \-> cancel       \-> undo (still at rest)
 */
import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { AbortError, VmmError } from '../../base/errors.js';
import { naming } from '../../base/system-call.js';
import { untilAborted } from '../../base/turn-queue.js';
import type { BackendDescription } from '../contract.js';
import { writeContents } from './contents-file.js';
import type { BlockDone, BlockError } from './contract.js';
import { imageBeside, type DiskReference, type FileFacts } from './disk-reference.js';
import type { RebindOptions, RebindReport } from './rebind.js';
import type { BlockSource } from './source.js';
import type { FrozenUnits } from './unit-store.js';

/** The provider, as far as its disk's cut needs it. */
export interface CutHost {
  readonly id: string;
  readonly readOnly: boolean;
  readonly geometry: { readonly sizeBytes: number };
  /** What it stands on, from the moment of a change of that on. */
  readonly source: BlockSource;
  /** What is in memory and nowhere else: the disk's contents, or its changed blocks. */
  freeze(): FrozenUnits | undefined;
  /** The guest's changes go to an overlay in memory. */
  readonly copiesOnWrite: boolean;
  readonly keepsContents: boolean;
  /** Requests that change data and have started. With nothing in flight it tells whether there were any since. */
  readonly changes: number;
  rebind(source: BlockSource, options?: RebindOptions): Promise<RebindReport>;
  /** It waits for none of the guest's limits. */
  flushNow(done: BlockDone): void;
}

export interface CutOptions {
  /** Names the instant: of the snapshot that it belongs to. A UUID. */
  readonly generation: string;
  /** For contents of disks in memory: the snapshot's, where `disk-ID.contents` is made. */
  readonly folder: string;
  readonly signal?: AbortSignal | undefined;
}

/** A disk that was cut: the instant is over, the machine may go on. */
export interface DiskCut {
  /** Resolves when all that the snapshot needs of the disk is durable. */
  durable(): Promise<DiskReference>;
  /**
   * Still at rest: as if nothing had been.
   *
   * @throws VmmError of what refused the change back; the machine goes on in the new image then.
   */
  undo(): Promise<void>;
  /**
   * Later, while the machine runs, when the snapshot came to nothing: what was kept for it is let go. A new image into which the guest
   * may have written is its disk and stays; else the disk goes back to the one below, and the image is deleted. Idempotent.
   *
   * @throws VmmError of what refused the change back, AbortError; the image stays then, which does no harm.
   */
  release(signal?: AbortSignal): Promise<void>;
}

export interface PendingCut {
  /**
   * With the disk at rest (prepare).
   *
   * @throws VmmError ERR_SNAPSHOT_REFUSED for a disk that was rebound since, of what refused the change; AbortError. The disk is
   *   as it was then.
   */
  take(): Promise<DiskCut>;
  /** Instead of take(). An image that the disk stands on is never deleted. */
  cancel(): Promise<void>;
}

/** @throws VmmError ERR_SNAPSHOT_REFUSED for a disk that can't be cut; AbortError. Nothing is left behind then. */
export async function beginCut(disk: CutHost, options: CutOptions): Promise<PendingCut> {
  if (options.signal?.aborted === true) throw new AbortError(options.signal);
  if (disk.keepsContents) return contentsCut(disk, options);
  if (disk.readOnly) return readOnlyCut(disk);
  return imageCut(disk, options);
}

function refusal(
  disk: CutHost,
  why: string,
  more: { readonly cause?: unknown; readonly cure?: string } = {},
): VmmError {
  return new VmmError('ERR_SNAPSHOT_REFUSED', `disk ${disk.id} can't be cut: ${why}`, more);
}

const REBOUND = 'it was rebound meanwhile';

function readOnlyCut(disk: CutHost): PendingCut {
  const { source } = disk;
  const durable = async (): Promise<DiskReference> => ({ id: disk.id, kind: 'base', base: await baseOf(source) });
  const take = (): Promise<DiskCut> => {
    if (disk.source !== source) return Promise.reject(refusal(disk, REBOUND));
    return Promise.resolve({ durable, undo: nothing, release: nothing });
  };
  return { take, cancel: nothing };
}

function contentsCut(disk: CutHost, { folder, signal }: CutOptions): PendingCut {
  const name = `disk-${disk.id}.contents`;
  const file = path.join(folder, name);
  const { source } = disk;
  const take = (): Promise<DiskCut> => {
    const frozen = disk.source === source ? disk.freeze() : undefined;
    if (frozen === undefined) return Promise.reject(refusal(disk, REBOUND));
    const { sizeBytes } = disk.geometry;
    const { copiesOnWrite } = disk;
    const durable = async (): Promise<DiskReference> => {
      try {
        const written = await writeContents(file, frozen, sizeBytes, signal);
        const base = copiesOnWrite ? await baseOf(source) : undefined;
        return { id: disk.id, kind: 'contents', file: name, sizeBytes, ...written, ...(base ? { base } : {}) };
      } finally {
        frozen.release();
      }
    };
    const release = (): Promise<void> => Promise.resolve(frozen.release());
    return Promise.resolve({ durable, undo: release, release });
  };
  return { take, cancel: nothing };
}

async function imageCut(disk: CutHost, { generation, signal }: CutOptions): Promise<PendingCut> {
  const { source } = disk;
  const below = fileOf(source.describe());
  const overlay = below === undefined ? undefined : source.overlay?.(imageBeside(below, generation));
  if (below === undefined || overlay === undefined)
    throw refusal(disk, `no image can be laid over one on '${source.describe().kind}'`);
  if (await isBlockDevice(below)) {
    throw refusal(disk, `${below} is a block device, beside which no image can lie`, {
      cure: 'copyOnWrite keeps its changes in memory; or put its contents into a file',
    });
  }
  const file = imageBeside(below, generation);
  /** Never from under the disk, whatever else went wrong. */
  const remove = async (): Promise<void> => {
    if (disk.source !== overlay.source) await rm(file, { force: true });
  };
  try {
    await overlay.create(disk.geometry.sizeBytes);
  } catch (cause) {
    throw refusal(disk, (cause as Error).message, { cause });
  }
  try {
    // Most of what has to be durable is so before anything stands still.
    await untilAborted(flushed(disk), signal);
    if (signal?.aborted === true) throw new AbortError(signal);
  } catch (error) {
    await remove();
    throw error;
  }
  const take = async (): Promise<DiskCut> => {
    const stays = (): boolean => disk.source === source;
    // Asked in the turn of the change, before which another one may be queued.
    const checked = { signal, refuse: () => (stays() ? undefined : REBOUND) };
    await disk.rebind(overlay.source, checked).catch(async (error: unknown) => {
      await remove();
      throw stays() ? error : refusal(disk, REBOUND, { cause: error });
    });
    const changesThen = disk.changes;
    const durable = async (): Promise<DiskReference> => {
      const frozen = { ...overlay.below, ...(await factsOf(overlay.below.path)) };
      return { id: disk.id, kind: 'frozen', generation, sizeBytes: disk.geometry.sizeBytes, frozen };
    };
    const back = async (until?: AbortSignal): Promise<void> => {
      const isFree = (): boolean => disk.source === overlay.source && disk.changes === changesThen;
      if (!isFree()) return;
      // Asked in the turn of the change, the last time with nothing in flight.
      const refuse = (): string | undefined => (isFree() ? undefined : 'the guest has written, or it was rebound');
      try {
        await disk.rebind(source, { signal: until, refuse });
      } catch (error) {
        if (isFree()) throw error;
        return;
      }
      await remove();
    };
    return { durable, undo: () => back(), release: back };
  };
  return { take, cancel: remove };
}

function flushed(disk: CutHost): Promise<void> {
  return new Promise((resolve, reject) => {
    disk.flushNow((error: BlockError | undefined) => {
      if (error === undefined) return resolve();
      const message = `disk ${disk.id} can't be flushed: ${error.message}`;
      reject(new VmmError('ERR_SNAPSHOT_REFUSED', message, { cause: error }));
    });
  });
}

async function baseOf(source: BlockSource): Promise<{ description: Record<string, unknown> } & Partial<FileFacts>> {
  const description = JSON.parse(JSON.stringify(source.describe())) as Record<string, unknown>;
  const file = fileOf(source.describe());
  return { description, ...(file === undefined ? {} : { path: path.resolve(file), ...(await factsOf(file)) }) };
}

/** The file that a disk stands on, through what is around it. */
function fileOf(description: BackendDescription): string | undefined {
  if (typeof description['path'] === 'string') return description['path'];
  const inner = description['disk'];
  return typeof inner === 'object' ? fileOf(inner) : undefined;
}

/** Through links. What can't be asked is found out by what comes next. */
function isBlockDevice(file: string): Promise<boolean> {
  return stat(file).then(
    (found) => found.isBlockDevice(),
    () => false,
  );
}

/** @throws SystemError naming it */
export async function factsOf(file: string): Promise<{ fileBytes: number; changedNs: bigint }> {
  const { size, mtimeNs } = await naming(file, () => stat(file, { bigint: true }));
  return { fileBytes: Number(size), changedNs: mtimeNs };
}

async function nothing(): Promise<void> {
  // There is nothing to undo.
}

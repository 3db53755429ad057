/**
 * A disk and a snapshot's instant: what of a disk belongs to the snapshot, and how the machine goes on without changing it.
 *
 *   raw, qcow2, writable   an empty qcow2 image over it, beside it: the machine goes on in that; the file below is the
 *                          snapshot's from then on, and changed no more. PATH.GENERATION.qcow2, mode 0600; it stays
 *                          when the machine is closed, since it is the disk now
 *   in memory, overlays    frozen, and written to a file of the snapshot's while the machine goes on
 *   read-only              a reference with size and time of change
 *   anything else          refused by name
 *
 *   begin (machine runs: image made, flush) -> take (at rest) -> durable (machine runs) | undo (still at rest)
 *                                          \-> cancel
 */
import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { AbortError, VmmError } from '../../base/errors.js';
import type { BackendDescription } from '../contract.js';
import { writeContents } from './contents-file.js';
import type { BlockDone, BlockError } from './contract.js';
import type { DiskReference, FileFacts } from './disk-reference.js';
import type { RebindOptions, RebindReport } from './rebind.js';
import type { BlockSource } from './source.js';
import type { FrozenUnits } from './unit-store.js';

/** The provider, as far as its disk's cut needs it. */
export interface CutHost {
  readonly id: string;
  readonly readOnly: boolean;
  readonly geometry: { readonly sizeBytes: number };
  /** What it stands on. */
  readonly source: BlockSource;
  /** What is in memory and nowhere else: the disk's contents, or its changed blocks. */
  freeze(): FrozenUnits | undefined;
  /** The guest's changes go to an overlay in memory. */
  readonly copiesOnWrite: boolean;
  readonly keepsContents: boolean;
  rebind(source: BlockSource, options?: RebindOptions): Promise<RebindReport>;
  flush(done: BlockDone): void;
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
  /** Still at rest: as if nothing had been. Nothing happens later, when the guest has changes in the new image. */
  undo(): Promise<void>;
}

export interface PendingCut {
  /** With the disk at rest (prepare). @throws VmmError of what refused the change; the disk is as it was then. */
  take(): Promise<DiskCut>;
  /** Instead of take(). */
  cancel(): Promise<void>;
}

/** @throws VmmError ERR_SNAPSHOT_REFUSED for a disk that can't be cut; AbortError. Nothing is left behind then. */
export async function beginCut(disk: CutHost, options: CutOptions): Promise<PendingCut> {
  if (options.signal?.aborted === true) throw new AbortError(options.signal);
  if (disk.keepsContents) return contentsCut(disk, options);
  if (disk.readOnly) return readOnlyCut(disk);
  return imageCut(disk, options);
}

function readOnlyCut(disk: CutHost): PendingCut {
  const durable = async (): Promise<DiskReference> => ({ id: disk.id, kind: 'base', base: await baseOf(disk.source) });
  return { take: () => Promise.resolve({ durable, undo: nothing }), cancel: nothing };
}

function contentsCut(disk: CutHost, { folder, signal }: CutOptions): PendingCut {
  const name = `disk-${disk.id}.contents`;
  const file = path.join(folder, name);
  const take = (): Promise<DiskCut> => {
    const frozen = disk.freeze()!;
    const { sizeBytes } = disk.geometry;
    const durable = async (): Promise<DiskReference> => {
      try {
        const written = await writeContents(file, frozen, sizeBytes, signal);
        const base = disk.copiesOnWrite ? await baseOf(disk.source) : undefined;
        return { id: disk.id, kind: 'contents', file: name, sizeBytes, ...written, ...(base ? { base } : {}) };
      } finally {
        frozen.release();
      }
    };
    const undo = (): Promise<void> => Promise.resolve(frozen.release());
    return Promise.resolve({ durable, undo });
  };
  return { take, cancel: nothing };
}

async function imageCut(disk: CutHost, { generation, signal }: CutOptions): Promise<PendingCut> {
  const { source } = disk;
  const refuse = (why: string, cause?: unknown): VmmError =>
    new VmmError('ERR_SNAPSHOT_REFUSED', `disk ${disk.id} can't be cut: ${why}`, { cause });
  const below = fileOf(source.describe());
  const overlay = below === undefined ? undefined : source.overlay?.(overlayPath(below, generation));
  if (below === undefined || overlay === undefined)
    throw refuse(`no image can be laid over one on '${source.describe().kind}'`);
  const file = overlayPath(below, generation);
  const remove = (): Promise<void> => rm(file, { force: true });
  try {
    await overlay.create(disk.geometry.sizeBytes);
  } catch (cause) {
    throw refuse((cause as Error).message, cause);
  }
  try {
    // Most of what has to be durable is so before anything stands still.
    await flushed(disk);
    if (signal?.aborted === true) throw new AbortError(signal);
  } catch (error) {
    await remove();
    throw error;
  }
  const take = async (): Promise<DiskCut> => {
    await disk.rebind(overlay.source).catch(async (error: unknown) => {
      await remove();
      throw error;
    });
    const durable = async (): Promise<DiskReference> => {
      const frozen = { ...overlay.below, ...(await factsOf(overlay.below.path)) };
      return { id: disk.id, kind: 'frozen', generation, sizeBytes: disk.geometry.sizeBytes, frozen };
    };
    const undo = async (): Promise<void> => {
      if (disk.source !== overlay.source) return;
      await disk.rebind(source);
      await remove();
    };
    return { durable, undo };
  };
  return { take, cancel: remove };
}

/** Beside the disk; where that is such an image itself, in place of its generation. */
function overlayPath(below: string, generation: string): string {
  return `${below.replace(/\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.qcow2$/, '')}.${generation}.qcow2`;
}

function flushed(disk: CutHost): Promise<void> {
  return new Promise((resolve, reject) => {
    disk.flush((error: BlockError | undefined) => {
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

export async function factsOf(file: string): Promise<{ fileBytes: number; changedNs: bigint }> {
  const { size, mtimeNs } = await stat(file, { bigint: true });
  return { fileBytes: Number(size), changedNs: mtimeNs };
}

async function nothing(): Promise<void> {
  // There is nothing to undo.
}

/**
 * What a snapshot keeps of a disk, beside its provider's state, and how a restored machine comes to the same data: through
 * an image of its own over the file that was frozen, from the contents that were written, or over the same base, which
 * must not have changed.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import * as v from 'valibot';
import { VmmError } from '../../base/errors.js';
import { text } from '../../base/saved-parts.js';
import { integer, stateFormat, u64 } from '../../base/saved-state.js';
import { readContents } from './contents-file.js';
import { fileDisk } from './file.js';
import { filledMemoryDisk } from './memory.js';
import { qcow2Disk } from './qcow2/index.js';
import type { BlockSource } from './source.js';
import type { FrozenUnits } from './unit-store.js';

const size = integer(0, Number.MAX_SAFE_INTEGER);
const path4096 = text(4096);
/** As stat has it; a base that changed has other ones. */
const facts = { path: path4096, fileBytes: size, changedNs: u64 };
const base = v.strictObject({
  description: v.record(v.string(), v.unknown()),
  path: v.optional(path4096),
  fileBytes: v.optional(size),
  changedNs: v.optional(u64),
});

const reference = v.variant('kind', [
  v.strictObject({
    kind: v.literal('frozen'),
    id: text(256),
    generation: text(64),
    sizeBytes: size,
    frozen: v.strictObject({ ...facts, format: v.picklist(['raw', 'qcow2']) }),
  }),
  v.strictObject({
    kind: v.literal('contents'),
    id: text(256),
    /** In the snapshot's folder. */
    file: v.pipe(text(300), v.regex(/^disk-[A-Za-z0-9._-]+\.contents$/)),
    sizeBytes: size,
    fileBytes: size,
    sha256: v.pipe(text(64), v.hexadecimal()),
    /** Of changed blocks over a disk: that disk. */
    base: v.optional(base),
  }),
  v.strictObject({ kind: v.literal('base'), id: text(256), base }),
]);

export const diskReferenceState = stateFormat({ type: 'disk-reference', version: 1, schema: reference });
export type DiskReference = v.InferOutput<typeof reference>;
export interface FileFacts {
  readonly path: string;
  readonly fileBytes: number;
  readonly changedNs: bigint;
}

/** What a restored disk is made of. */
export interface RestoredDisk {
  /** Undefined: the caller's, or nothing that a reference is enough for to open it again. */
  readonly source?: BlockSource;
  /** A file that was made for it, which is of no use when the restore fails. */
  readonly made?: string;
  /** Changed blocks, for a provider with copyOnWrite: `BlockProvider.fill`. */
  readonly changes?: Pick<FrozenUnits, 'unitBytes' | 'units'>;
}

export interface RestoreDiskOptions {
  /** The snapshot's. */
  readonly folder: string;
  /** Names this restore: a UUID. The image of its own is `imageBeside` the frozen file, mode 0600. */
  readonly clone: string;
  /** Another source serves this disk: the reference's own file is not looked at. */
  readonly isOverridden?: boolean;
  /** Folders that backing files of the frozen image may lie in, beside its own. */
  readonly backingFolders?: readonly string[];
}

/**
 * @throws VmmError ERR_DISK_IMAGE naming a disk whose frozen or base file is gone or has changed since; ERR_SNAPSHOT for
 *   contents that are not those that were written.
 */
export async function restoreDisk(saved: DiskReference, options: RestoreDiskOptions): Promise<RestoredDisk> {
  const { folder, clone, isOverridden = false, backingFolders = [] } = options;
  switch (saved.kind) {
    case 'base':
      return isOverridden ? {} : await baseDisk(saved.id, saved.base);
    case 'contents': {
      const contents = await readContents(path.join(folder, saved.file), saved);
      if (saved.base === undefined) return isOverridden ? {} : { source: filledMemoryDisk(saved.sizeBytes, contents) };
      return { changes: contents, ...(isOverridden ? {} : await baseDisk(saved.id, saved.base)) };
    }
    case 'frozen': {
      if (isOverridden) return {};
      const { frozen } = saved;
      await checkSame(saved.id, frozen);
      const below = frozen.format === 'raw' ? fileDisk(frozen.path) : qcow2Disk(frozen.path, { backingFolders });
      const file = imageBeside(frozen.path, clone);
      const overlay = below.overlay!(file);
      await overlay.create(saved.sizeBytes);
      return { source: overlay.source, made: file };
    }
  }
}

/** An image's name beside the disk that it lies over; where that is such an image itself, in place of its UUID. */
export function imageBeside(below: string, uuid: string): string {
  return `${below.replace(/\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.qcow2$/, '')}.${uuid}.qcow2`;
}

/** A disk that is only read: the file that was checked, whatever else its description names. @throws VmmError ERR_DISK_IMAGE */
async function baseDisk(id: string, saved: v.InferOutput<typeof base>): Promise<Pick<RestoredDisk, 'source'>> {
  await checkSame(id, saved);
  const { path: file, description } = saved;
  if (file === undefined) return {};
  if (description['kind'] === 'file') return { source: fileDisk(file) };
  return description['kind'] === 'qcow2' ? { source: qcow2Disk(file) } : {};
}

/** @throws VmmError ERR_DISK_IMAGE */
async function checkSame(
  id: string,
  known: { [Fact in keyof FileFacts]?: FileFacts[Fact] | undefined },
): Promise<void> {
  const { path: file, fileBytes, changedNs } = known;
  if (file === undefined) return;
  const now = await stat(file, { bigint: true }).catch((cause: unknown) => {
    throw new VmmError('ERR_DISK_IMAGE', `disk ${id}: ${file}, on which the snapshot stands, is not there`, { cause });
  });
  if (Number(now.size) === fileBytes && now.mtimeNs === changedNs) return;
  throw new VmmError(
    'ERR_DISK_IMAGE',
    `disk ${id}: ${file} has changed since the snapshot that stands on it was made`,
    {
      cure: 'another disk in overrides, if its data is known to be right',
    },
  );
}

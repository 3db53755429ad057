/**
 * What all files of a snapshot share: their names, limits and the error for one that is wrong. The layout itself is in
 * docs/snapshot-format.md; manifest.ts, group-index.ts and state-file.ts read and write it.
 */
import { VmmError } from '../base/errors.js';
import { GiB, MiB } from '../base/units.js';
export { groupCount, GROUP_BYTES } from '../memory/index.js';

export const FORMAT_VERSION = 1;

/** The files of a snapshot's folder, beside contents of disks (disk-files.ts). */
export const FileName = {
  MANIFEST: 'manifest.json',
  STATE: 'state',
  INDEX: 'index',
  MEMORY: 'memory',
  ACCESS: 'access',
} as const;

/** What is read is bounded by these before room for it is made. */
export const Limit = {
  MANIFEST_BYTES: 4 * MiB,
  STATE_BYTES: 256 * MiB,
  MEMORY_BYTES: 1024 * GiB,
  /** Snapshots in a chain, the youngest included. */
  CHAIN: 256,
  PATH_BYTES: 4096,
} as const;

/** Something of a snapshot is not as it was written. */
export function damaged(where: string, what: string, cause?: unknown): VmmError {
  return new VmmError('ERR_SNAPSHOT', `${where}: ${what}`, cause === undefined ? {} : { cause });
}

/** Snapshots as files: written, read, listed, verified, deleted. docs/snapshot-format.md has the format. */
export { GROUP_BYTES } from './format.js';
export type { SnapshotProgress } from './progress.js';
export { snapshots } from './snapshots.js';
export { SnapshotWriter, type SnapshotContents, type SnapshotWriterOptions } from './writer.js';
export { SnapshotReader, type ReadOptions } from './reader.js';
export {
  deleteSnapshot,
  listSnapshots,
  snapshotTree,
  verifySnapshot,
  type BrokenSnapshot,
  type DeleteOptions,
  type SnapshotInfo,
  type SnapshotNode,
} from './store.js';

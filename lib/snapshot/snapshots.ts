/** The store as users of the library see it: one name for what can be done with snapshots that nobody restores. */
import { deleteSnapshot, listSnapshots, snapshotTree, verifySnapshot } from './store.js';

/**
 * Snapshots that lie in a folder. They are made by `Machine.snapshot` and used by `Machine.restore`; nothing here needs KVM.
 *
 * @example
 * const { snapshots: sound, broken } = await snapshots.list('snapshots');
 * for (const { name, createdMs } of sound) console.log(name, new Date(createdMs));
 * for (const { name, error } of broken) console.log(name, error.message);
 * await snapshots.verify('snapshots/ready');
 * await snapshots.delete('snapshots/old'); // those that stand on it take over what they need
 */
export const snapshots = {
  /** Those of a folder by age, by their manifests alone, and what looks like one and can't be read. @throws SystemError */
  list: listSnapshots,
  /** Those of a folder that can be read, each under its parent. @throws SystemError */
  tree: snapshotTree,
  /**
   * Reads all that a snapshot needs, its parents' groups too, and holds every byte against a check.
   *
   * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION, ERR_SNAPSHOT_PARENT naming what is wrong; SystemError; AbortError.
   */
  verify: verifySnapshot,
  /**
   * Deletes one. Those of the same folder that stand on it are merged, or it is refused with their names (`children: 'refuse'`).
   * Images of disks, which lie elsewhere, stay.
   *
   * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_REFUSED; SystemError; AbortError.
   */
  delete: deleteSnapshot,
} as const;

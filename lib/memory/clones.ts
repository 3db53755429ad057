/**
 * Machines of this process that were restored from one snapshot and still live, and the memory that they share until they write it
 * (native/memory/group_store.h). A machine that is alone has memory of its own, in huge pages, and pays for no sharing; those that
 * come while it is there share. The store goes with the last of those that use it.
 */
import { loadBinding } from '../kvm/binding.js';
import type { NativeGroupSource, NativeGroupStore } from '../kvm/native-pager.js';

/** That one machine is one of a snapshot's clones, until it is left. */
export interface CloneMembership {
  /** What its memory has to stand on; undefined for memory of its own. */
  readonly store: NativeGroupStore | undefined;
  /** Its memory is unmapped. Idempotent. */
  leave(): void;
}

export interface JoinOptions {
  /** Whether it shares; undefined: when others are there already. */
  readonly share: boolean | undefined;
  readonly source: NativeGroupSource;
  readonly sizeBytes: number;
}

interface Family {
  machines: number;
  sharing: number;
  store: NativeGroupStore | undefined;
}

/** By what tells a snapshot's bytes from all others. */
const families = new Map<string, Family>();

/**
 * One more machine of the snapshot that `key` names. Who names two snapshots by one key gives the memory of the one to clones of the
 * other.
 *
 * @throws SystemError when the store can't be had; RangeError for a source of another size.
 */
export function joinClones(key: string, { share, source, sizeBytes }: JoinOptions): CloneMembership {
  const family = families.get(key) ?? { machines: 0, sharing: 0, store: undefined };
  const shares = share ?? family.machines > 0;
  if (shares) {
    family.store ??= new (loadBinding().addon.GroupStore)(source, sizeBytes);
    family.sharing++;
  }
  family.machines++;
  families.set(key, family);
  let left = false;
  return {
    store: shares ? family.store : undefined,
    leave() {
      if (left) return;
      left = true;
      if (shares && --family.sharing === 0) {
        family.store?.close();
        family.store = undefined;
      }
      if (--family.machines === 0) families.delete(key);
    },
  };
}

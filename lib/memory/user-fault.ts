/**
 * Whether this kernel lets this user serve page faults (userfaultfd), and which of the ways of a snapshot that allows.
 * What is lacking is told by the kernel's own name, with the version that brought it and a cure.
 */
import { loadBinding } from '../kvm/binding.js';
import { UserFaultFeature } from '../kvm/native-pager.js';

/** 'store': memory of a clone, shared until it is written. */
export type Backing = 'anonymous' | 'memfd' | 'store';

/** A lack: the name of what is missing, and what to do about it. */
export interface Lack {
  readonly name: string;
  readonly cure: string;
}

export interface UserFaultSupport {
  /** Snapshots with the mode 'instant'. */
  readonly instant: Lack | undefined;
  /** Restores with lazy memory. */
  readonly lazy: Lack | undefined;
  /** Whether pages that can't be had are poisoned; else who waits for them finds zeros, in a machine that never runs on. */
  readonly poison: boolean;
}

interface Row {
  readonly feature: number;
  readonly name: string;
  readonly since: string;
}

const WRITE_PROTECT: Row = {
  feature: UserFaultFeature.WRITE_PROTECT,
  name: 'UFFD_FEATURE_PAGEFAULT_FLAG_WP',
  since: '5.7',
};
const WP_SHMEM: Row = { feature: UserFaultFeature.WP_SHMEM, name: 'UFFD_FEATURE_WP_HUGETLBFS_SHMEM', since: '5.19' };
const WP_UNPOPULATED: Row = {
  feature: UserFaultFeature.WP_UNPOPULATED,
  name: 'UFFD_FEATURE_WP_UNPOPULATED',
  since: '6.4',
};
const MISSING_SHMEM: Row = {
  feature: UserFaultFeature.MISSING_SHMEM,
  name: 'UFFD_FEATURE_MISSING_SHMEM',
  since: '4.11',
};
const MINOR_SHMEM: Row = { feature: UserFaultFeature.MINOR_SHMEM, name: 'UFFD_FEATURE_MINOR_SHMEM', since: '5.14' };

/** A clone puts pages in write-protected (UFFDIO_CONTINUE_MODE_WP), which came with WP_UNPOPULATED. */
const INSTANT: Readonly<Record<Backing, readonly Row[]>> = {
  anonymous: [WRITE_PROTECT, WP_UNPOPULATED],
  memfd: [WRITE_PROTECT, WP_SHMEM],
  store: [WRITE_PROTECT, WP_SHMEM, WP_UNPOPULATED],
};
const LAZY: Readonly<Record<Backing, readonly Row[]>> = {
  anonymous: [],
  memfd: [MISSING_SHMEM],
  store: [MISSING_SHMEM, MINOR_SHMEM, WP_UNPOPULATED],
};

/** What can be had for guest memory of that kind. Asks the kernel anew each time. */
export function userFaultSupport(backing: Backing): UserFaultSupport {
  return readSupport(loadBinding().addon.userFaultSupport(), backing);
}

/** The same of what the addon told; pure. */
export function readSupport(
  told: { readonly features: number; readonly step?: string; readonly errno?: string },
  backing: Backing,
): UserFaultSupport {
  if (told.step !== undefined) {
    const lack = {
      name: `userfaultfd (${told.step}: ${told.errno ?? 'refused'})`,
      cure: 'let this user open /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1, or run as root',
    };
    return { instant: lack, lazy: lack, poison: false };
  }
  const first = (rows: readonly Row[]): Lack | undefined => {
    const row = rows.find(({ feature }) => (told.features & feature) === 0);
    return row && { name: row.name, cure: `Linux ${row.since} or later on the host` };
  };
  return {
    instant: first(INSTANT[backing]),
    lazy: first(LAZY[backing]),
    poison: (told.features & UserFaultFeature.POISON) !== 0,
  };
}

/** Each lack of a kernel is told by its name, for the kind of memory that it concerns. */
import { describe, expect, it } from 'vitest';
import { UserFaultFeature as F } from '../kvm/native-pager.js';
import { readSupport } from './user-fault.js';

const ALL = F.WRITE_PROTECT | F.MISSING_SHMEM | F.WP_SHMEM | F.WP_UNPOPULATED | F.POISON | F.MINOR_SHMEM;

describe('what userfaultfd allows', () => {
  it('is everything on a kernel that has all', () => {
    for (const backing of ['anonymous', 'memfd', 'store'] as const) {
      expect(readSupport({ features: ALL }, backing)).toEqual({ instant: undefined, lazy: undefined, poison: true });
    }
  });

  it.each([
    ['anonymous', F.WP_UNPOPULATED, 'instant', 'UFFD_FEATURE_WP_UNPOPULATED'],
    ['anonymous', F.WRITE_PROTECT, 'instant', 'UFFD_FEATURE_PAGEFAULT_FLAG_WP'],
    ['memfd', F.WP_SHMEM, 'instant', 'UFFD_FEATURE_WP_HUGETLBFS_SHMEM'],
    ['memfd', F.MISSING_SHMEM, 'lazy', 'UFFD_FEATURE_MISSING_SHMEM'],
    ['store', F.MINOR_SHMEM, 'lazy', 'UFFD_FEATURE_MINOR_SHMEM'],
    ['store', F.WP_SHMEM, 'instant', 'UFFD_FEATURE_WP_HUGETLBFS_SHMEM'],
  ] as const)('for %s memory without %i lacks %s by name', (backing, lacking, way, name) => {
    const support = readSupport({ features: ALL & ~lacking }, backing);
    expect(support[way]?.name).toBe(name);
    expect(support[way]?.cure).toMatch(/^Linux \d/);
    expect(support[way === 'instant' ? 'lazy' : 'instant']).toBeUndefined();
  });

  it('is of no concern to the other kind of memory', () => {
    expect(readSupport({ features: ALL & ~F.WP_UNPOPULATED }, 'memfd').instant).toBeUndefined();
    expect(readSupport({ features: ALL & ~F.WP_SHMEM & ~F.MISSING_SHMEM }, 'anonymous')).toEqual({
      instant: undefined,
      lazy: undefined,
      poison: true,
    });
  });

  it('is nothing where this user has none', () => {
    const support = readSupport({ features: 0, step: 'userfaultfd', errno: 'EPERM' }, 'anonymous');
    expect(support.instant?.name).toBe('userfaultfd (userfaultfd: EPERM)');
    expect(support.lazy?.cure).toContain('vm.unprivileged_userfaultfd');
  });
});

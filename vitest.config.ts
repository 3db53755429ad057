/**
 * The groups of tests. `unit` needs no KVM and takes seconds; `kvm` needs a /dev/kvm that can be opened (its
 * own, or that of the embedded host); `guest` boots stock Debian kernels and runs one file at a time, since two booting
 * guests on a small machine only time each other out. scripts/test.mjs runs the groups one after the other. `guest-long` is what
 * takes too long for every run on two CPUs: `npm run test:guest-long`.
 */
import { defineConfig } from 'vitest/config';

// eslint-disable-next-line no-restricted-syntax -- vitest wants a default export
export default defineConfig({
  test: {
    // Processes, not threads: the addon holds threads and file descriptors, and a crash must name its file.
    pool: 'forks',
    projects: [
      {
        test: {
          name: 'unit',
          include: ['lib/**/*.test.ts', 'test/unit/**/*.test.ts'],
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'kvm',
          include: ['test/kvm/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: 'guest-long',
          include: ['test/guest-long/**/*.test.ts'],
          testTimeout: 900_000,
          hookTimeout: 300_000,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});

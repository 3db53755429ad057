/**
 * Who runs each block of the documents, beside what test/unit/document-blocks.test.ts holds it to: TypeScript compiled, lines of shell
 * parsed. The tests named here run exactly the blocks that stand here under their name; one that stands nowhere fails the unit group.
 */

/** In the kvm group: as written, over flat guests or a kernel of the test's own in the place of Linux. */
export const RUN_ON_KVM = [
  'README.md > The library > 1',
  'README.md > The library > 2',
  'README.md > The library > 3',
  'README.md > The library > 4',
  'README.md > The library > 5',
  'README.md > The library > 7',
  'docs/guest-time.md > For programs > 1',
  'docs/devices.md > For programs > 1',
  'docs/snapshots.md > Snapshots > 1',
  'docs/snapshots.md > The command > 1',
  'docs/control.md > The socket > 1',
  'docs/control.md > Metrics > 1',
  'docs/control.md > Logs and probes > 1',
  'docs/dashboard.md > The dashboard > 1',
  'docs/dashboard.md > What it shows > 1',
] as const;

/** In the guest group: typed into a shell, or run as a program, with stock Linux guests. */
export const RUN_ON_LINUX = [
  'README.md > Two commands > 1',
  'README.md > The command > 1',
  'docs/ci.md > Tests in a fresh guest > 1',
  'docs/ci.md > Tests in a fresh guest > 2',
  'docs/control.md > Named machines > 1',
  'docs/control.md > The fence > 1',
  'docs/control.md > For programs > 1',
] as const;

/** Not run, with the reason: these are compiled or parsed alone. */
export const NOT_RUN: Readonly<Record<string, string>> = {
  'README.md > The library > 6': 'compiled: test/guest/debian.test.ts boots the same system, which takes minutes',
  'docs/ci.md > Tests in a fresh guest > 3':
    "parsed: a runner's; its last line is that of the first block, with a kernel",
};

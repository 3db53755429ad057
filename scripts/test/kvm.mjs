/**
 * Decides where the kvm group runs: on this machine's KVM when it can be opened, else inside the embedded host.
 */
import { closeSync, openSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { diskFaultsLibrary } from '../../test/lib/disk-faults-library.mjs';
import { counted, ROOT } from './run.mjs';

/** Whether this process may open KVM, at the path that the library uses too. */
export function kvmAccess() {
  const node = process.env.VIVARIUM_KVM ?? '/dev/kvm';
  try {
    closeSync(openSync(node, 'r+'));
    return { usable: true, path: node };
  } catch (error) {
    return { usable: false, path: node, reason: `${node}: ${error.code}` };
  }
}

/** Runs the kvm group inside the embedded host: its vitest reads this checkout through the host's file system. */
export function embeddedKvmGroup({ limitS }) {
  // There is no compiler inside.
  diskFaultsLibrary();
  return counted(async (countsEnv) => {
    const { embeddedHost } = await import('../../dist/host/index.js');
    const limit = AbortSignal.timeout(limitS * 1000);
    try {
      const { status } = await embeddedHost.run(path.join(ROOT, 'scripts/test/inside.mjs'), {
        args: ['kvm'],
        cwd: ROOT,
        env: { ...countsEnv, VIVARIUM_KVM: '/dev/kvm' },
        signal: limit,
        onStdout: (bytes) => void process.stdout.write(bytes),
        onStderr: (bytes) => void process.stderr.write(bytes),
      });
      return { status, timedOut: false };
    } catch (error) {
      console.error(error);
      return { status: 1, timedOut: limit.aborted };
    }
  });
}

/**
 * Decides where the kvm group runs: on this machine's KVM when it can be opened, else inside the embedded host.
 */
import { closeSync, openSync } from 'node:fs';
import process from 'node:process';

/** Whether this process may open KVM, at the path that the library uses too. */
export function kvmAccess() {
  const path = process.env.VIVARIUM_KVM ?? '/dev/kvm';
  try {
    closeSync(openSync(path, 'r+'));
    return { usable: true, path };
  } catch (error) {
    return { usable: false, path, reason: `${path}: ${error.code}` };
  }
}

/**
 * The embedded KVM host, as setup sees it: whether this machine needs it, and its image. Runs what is built in dist/.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './stamp.mjs';

/** Whether Linux guests need the embedded host here, and why: the answer of the probe guest that `run` goes by too. */
export async function embeddedHostIsNeeded() {
  if (!existsSync('/dev/kvm')) return { needed: true, reason: '/dev/kvm is not there' };
  try {
    const { probeKvm } = await import('../../dist/host/probe.js');
    const answer = await probeKvm();
    return { needed: !answer.linuxGuests, reason: answer.reason };
  } catch (error) {
    return { needed: true, reason: error.message };
  }
}

/** Builds the embedded host's image into the cache; resolves to its path. */
export async function prepareEmbeddedHost(options) {
  if (!existsSync(join(ROOT, 'dist/host/image.js'))) throw new Error('dist/host is not built');
  const { hostImage } = await import('../../dist/host/image.js');
  return (await hostImage(options)).initrdPath;
}

/** HAL: the host's generator of random bytes, as OpenSSL in Node gives it, seeded by the kernel; good for keys. */
import { randomBytes } from 'node:crypto';
import type { BackendDescription } from '../contract.js';
import type { EntropyBackend, EntropySource } from './contract.js';

const describe = (): BackendDescription => ({ kind: 'host' });

/** Random bytes of this host, made off the JavaScript thread. */
export function hostEntropy(): EntropySource {
  return { class: 'entropy', describe, open: openHostEntropy };
}

export function openHostEntropy(): EntropyBackend {
  return {
    bytes: (lengthBytes) =>
      new Promise((resolve, reject) => {
        randomBytes(lengthBytes, (error, bytes) => (error ? reject(error) : resolve(bytes)));
      }),
    describe,
    close: () => Promise.resolve(),
  };
}

/** HAL: the host's generator of random bytes, as OpenSSL in Node gives it, seeded by the kernel; good for keys. */
import { randomBytes } from 'node:crypto';
import type { EntropyBackend } from './contract.js';

/** Random bytes of this host, made off the JavaScript thread. */
export function hostEntropy(): EntropyBackend {
  return {
    bytes: (lengthBytes) =>
      new Promise((resolve, reject) => {
        randomBytes(lengthBytes, (error, bytes) => (error ? reject(error) : resolve(bytes)));
      }),
    describe: () => ({ kind: 'host' }),
    close: () => Promise.resolve(),
  };
}

/** CRC-32C (Castagnoli, RFC 3720 section 12.1), as it checks the groups of a snapshot. */
import { loadBinding } from '../kvm/binding.js';

export function crc32c(bytes: Uint8Array): number {
  return loadBinding().addon.crc32c(bytes);
}

/** Names of Linux network interfaces: one check for whoever opens one and for whoever reads its name from an option. */
import { INTERFACE_NAME_MAX_BYTES } from '../../abi/tun.js';

/** What the kernel would take for a pattern, a path or another field of `ip`'s (net/core/dev.c, dev_valid_name). */
const WRONG_NAME = /^\.{1,2}$|[/%:\s\0]/;

/** What a name may be, for messages. */
export const INTERFACE_NAME_RULE = `from 1 to ${INTERFACE_NAME_MAX_BYTES} bytes, no space, no / : %`;

/** Whether an interface can have this name: in bytes of UTF-8, as the kernel counts them. */
export function isInterfaceName(name: string): boolean {
  const bytes = Buffer.byteLength(name);
  return bytes > 0 && bytes <= INTERFACE_NAME_MAX_BYTES && !WRONG_NAME.test(name);
}

/**
 * Identification of IPv4 packets (RFC 791, 3.2), for a network that numbers every packet 0, as passt does: the packets of a
 * stream are numbered one after the other, as their sender's kernel would have done it, which is what lets them be merged.
 * A counter serves all streams that fall on it, so none is kept for each of them.
 */
import { Ipv4 } from '../../abi/inet.js';
import { folded } from './checksum.js';
import { layoutOf, setU16, u16 } from './frame-layout.js';

const COUNTERS = 256;

export class PacketNumbers {
  readonly #next = new Uint16Array(COUNTERS);

  /** Changes the frame in place: a TCP packet of number 0 gets the next one, and its header the checksum for it (RFC 1624). */
  number(frame: Uint8Array): void {
    const layout = layoutOf(frame);
    if (layout?.version !== 4 || layout.protocol !== 'tcp') return;
    const { ipAt, transportAt } = layout;
    if (u16(frame, ipAt + Ipv4.ID) !== 0) return;
    const id = this.#next[(u16(frame, transportAt) + u16(frame, transportAt + 2)) % COUNTERS]!++;
    setU16(frame, ipAt + Ipv4.ID, id);
    const sum = (u16(frame, ipAt + Ipv4.CHECKSUM) ^ 0xffff) + id;
    setU16(frame, ipAt + Ipv4.CHECKSUM, folded(sum) ^ 0xffff);
  }
}

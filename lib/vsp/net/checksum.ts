/**
 * HEL: the Internet checksum (RFC 1071), for backends that leave it to their user, and for what segments and merging
 * change. Sums are kept unfolded in a number: 64 KiB of 16-bit words are far below 2^53.
 */
import { Ipv4, Ipv6, IPV4_ADDRESSES_BYTES, IPV6_ADDRESSES_BYTES, IpProtocol, Tcp, Udp } from '../../abi/inet.js';
import { setU16, u16, type FrameLayout } from './frame-layout.js';

/** The sum of the big-endian 16-bit words of [from, to), an odd byte at the end counting as the upper half of one. */
export function sumOf(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  let at = from;
  for (; at + 1 < to; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  return at < to ? sum + (bytes[at]! << 8) : sum;
}

/** Carries added in, 16 bits; not yet complemented. */
export function folded(sum: number): number {
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** The pseudo header of the packet's transport (RFC 9293, 3.1; RFC 8200, 8.1), unfolded. */
export function pseudoHeaderSum(frame: Uint8Array, layout: FrameLayout): number {
  const { version, protocol, ipAt, transportAt, endAt } = layout;
  const addressesAt = ipAt + (version === 4 ? Ipv4.SOURCE : Ipv6.SOURCE);
  const addresses = version === 4 ? IPV4_ADDRESSES_BYTES : IPV6_ADDRESSES_BYTES;
  const number = protocol === 'tcp' ? IpProtocol.TCP : IpProtocol.UDP;
  return sumOf(frame, addressesAt, addressesAt + addresses) + number + (endAt - transportAt);
}

export function checksumAt(layout: FrameLayout): number {
  return layout.transportAt + (layout.protocol === 'tcp' ? Tcp.CHECKSUM : Udp.CHECKSUM);
}

/**
 * Finishes a checksum that a guest left to its device (virtio 1.2, 5.1.6.2): the field holds the sum of the pseudo
 * header; the rest is that of everything from `startAt` to the end. False when the field is not inside the frame.
 */
export function finishChecksum(frame: Uint8Array, startAt: number, offset: number): boolean {
  const at = startAt + offset;
  if (at + 2 > frame.length) return false;
  const value = ~folded(sumOf(frame, startAt, frame.length)) & 0xffff;
  // RFC 768: a UDP checksum of zero means that there is none; for the others both are the same number.
  setU16(frame, at, value === 0 ? 0xffff : value);
  return true;
}

/** Writes the packet's checksum anew, whatever stands there. */
export function writeChecksum(frame: Uint8Array, layout: FrameLayout): void {
  const at = checksumAt(layout);
  setU16(frame, at, 0);
  const sum = pseudoHeaderSum(frame, layout) + sumOf(frame, layout.transportAt, layout.endAt);
  const value = ~folded(sum) & 0xffff;
  setU16(frame, at, value === 0 ? 0xffff : value);
}

/** Whether the packet's checksum is right; for UDP over IPv4 also when there is none. */
export function hasRightChecksum(frame: Uint8Array, layout: FrameLayout): boolean {
  const stands = u16(frame, checksumAt(layout));
  if (layout.protocol === 'udp' && stands === 0) return layout.version === 4;
  return folded(pseudoHeaderSum(frame, layout) + sumOf(frame, layout.transportAt, layout.endAt)) === 0xffff;
}

/** Writes the header checksum of an IPv4 packet anew. */
export function writeIpv4HeaderChecksum(frame: Uint8Array, layout: FrameLayout): void {
  const { ipAt } = layout;
  setU16(frame, ipAt + Ipv4.CHECKSUM, 0);
  const headerBytes = (frame[ipAt]! & 0xf) * 4;
  setU16(frame, ipAt + Ipv4.CHECKSUM, ~folded(sumOf(frame, ipAt, ipAt + headerBytes)) & 0xffff);
}

/** Whether the header checksum of an IPv4 packet is right; IPv6 has none. */
export function hasRightHeaderChecksum(frame: Uint8Array, { version, ipAt }: FrameLayout): boolean {
  return version === 6 || folded(sumOf(frame, ipAt, ipAt + (frame[ipAt]! & 0xf) * 4)) === 0xffff;
}

/**
 * Where the headers of a frame are, for what is done to it in software: checksums, segments, merging. A frame comes from
 * a guest or from a network, so nothing in it is believed: every length is held against the bytes that are there. What
 * is no whole, unfragmented TCP or UDP packet has no layout, and passes as it is.
 */
import {
  Ether,
  EtherType,
  IPV4_FRAGMENT_MASK,
  Ipv4,
  Ipv6,
  IpProtocol,
  Tcp,
  Udp,
  VLAN_TAG_BYTES,
} from '../../abi/inet.js';

/** Byte offsets from the start of the frame. */
export interface FrameLayout {
  readonly version: 4 | 6;
  readonly protocol: 'tcp' | 'udp';
  readonly ipAt: number;
  readonly transportAt: number;
  readonly payloadAt: number;
  /** The end of the packet: frames shorter than 60 bytes have padding behind it. */
  readonly endAt: number;
}

const MAX_TAGS = 2;
/** Of an honest sender at most one of each kind. */
const MAX_EXTENSIONS = 8;

export function layoutOf(frame: Uint8Array): FrameLayout | undefined {
  let typeAt: number = Ether.TYPE;
  for (let tags = 0; tags < MAX_TAGS && isTag(u16(frame, typeAt)); tags++) typeAt += VLAN_TAG_BYTES;
  const ipAt = typeAt + 2;
  switch (u16(frame, typeAt)) {
    case EtherType.IPV4:
      return ipv4(frame, ipAt);
    case EtherType.IPV6:
      return ipv6(frame, ipAt);
    default:
      return undefined;
  }
}

/** The big-endian 16 bits at `at`; zero where the frame has ended. */
export function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

export function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
}

export function setU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function setU32(bytes: Uint8Array, at: number, value: number): void {
  setU16(bytes, at, (value >>> 16) & 0xffff);
  setU16(bytes, at + 2, value & 0xffff);
}

function isTag(type: number): boolean {
  return type === EtherType.VLAN || type === EtherType.SERVICE_VLAN;
}

function ipv4(frame: Uint8Array, ipAt: number): FrameLayout | undefined {
  if (frame.length < ipAt + Ipv4.MIN_HEADER_BYTES) return undefined;
  const first = frame[ipAt]!;
  const transportAt = ipAt + (first & 0xf) * 4;
  const endAt = ipAt + u16(frame, ipAt + Ipv4.TOTAL_BYTES);
  if (first >>> 4 !== 4 || transportAt < ipAt + Ipv4.MIN_HEADER_BYTES || endAt > frame.length) return undefined;
  if ((u16(frame, ipAt + Ipv4.FRAGMENT) & IPV4_FRAGMENT_MASK) !== 0) return undefined;
  return transport(frame, { version: 4, ipAt, transportAt, endAt }, frame[ipAt + Ipv4.PROTOCOL]!);
}

function ipv6(frame: Uint8Array, ipAt: number): FrameLayout | undefined {
  let at = ipAt + Ipv6.HEADER_BYTES;
  if (frame.length < at || frame[ipAt]! >>> 4 !== 6) return undefined;
  const endAt = at + u16(frame, ipAt + Ipv6.PAYLOAD_BYTES);
  if (endAt > frame.length) return undefined;
  let next = frame[ipAt + Ipv6.NEXT_HEADER]!;
  for (let extensions = 0; extensions < MAX_EXTENSIONS && isSkipped(next); extensions++) {
    if (at + 2 > endAt) return undefined;
    next = frame[at]!;
    at += (frame[at + 1]! + 1) * 8;
  }
  return transport(frame, { version: 6, ipAt, transportAt: at, endAt }, next);
}

/** Headers that change nothing about what follows. A routing header changes the address that checksums are made with. */
function isSkipped(header: number): boolean {
  return header === IpProtocol.HOP_BY_HOP || header === IpProtocol.DESTINATION_OPTIONS;
}

function transport(
  frame: Uint8Array,
  ip: Omit<FrameLayout, 'protocol' | 'payloadAt'>,
  protocol: number,
): FrameLayout | undefined {
  const { transportAt, endAt } = ip;
  if (protocol === IpProtocol.UDP) {
    const payloadAt = transportAt + Udp.HEADER_BYTES;
    // A length of its own, which on a whole packet says the same.
    if (payloadAt > endAt || u16(frame, transportAt + Udp.LENGTH) !== endAt - transportAt) return undefined;
    return { ...ip, protocol: 'udp', payloadAt };
  }
  if (protocol !== IpProtocol.TCP || transportAt + Tcp.MIN_HEADER_BYTES > endAt) return undefined;
  const payloadAt = transportAt + (frame[transportAt + Tcp.WORDS]! >>> 4) * 4;
  if (payloadAt < transportAt + Tcp.MIN_HEADER_BYTES || payloadAt > endAt) return undefined;
  return { ...ip, protocol: 'tcp', payloadAt };
}

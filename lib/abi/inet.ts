/**
 * Headers of Ethernet frames as far as a network device looks into them: Ethernet II and IEEE 802.1Q, IPv4 (RFC 791),
 * IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768). Offsets are from the start of each header, fields are big endian.
 */

export const Ether = { DESTINATION: 0, SOURCE: 6, TYPE: 12, HEADER_BYTES: 14, ADDRESS_BYTES: 6 } as const;

export const EtherType = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd, VLAN: 0x8100, SERVICE_VLAN: 0x88a8 } as const;

/** A tag of 802.1Q: two bytes of it behind the type that announces it, then the next type. */
export const VLAN_TAG_BYTES = 4;

export const Ipv4 = {
  VERSION_AND_WORDS: 0,
  TOTAL_BYTES: 2,
  ID: 4,
  /** Three flags and the offset of a fragment in units of eight bytes. */
  FRAGMENT: 6,
  PROTOCOL: 9,
  CHECKSUM: 10,
  SOURCE: 12,
  MIN_HEADER_BYTES: 20,
} as const;

/** More fragments follow, or the offset is not zero. */
export const IPV4_FRAGMENT_MASK = 0x3fff;

export const Ipv6 = { PAYLOAD_BYTES: 4, NEXT_HEADER: 6, SOURCE: 8, HEADER_BYTES: 40 } as const;

/** Source and destination address together. */
export const IPV4_ADDRESSES_BYTES = 8;
export const IPV6_ADDRESSES_BYTES = 32;

export const IpProtocol = {
  HOP_BY_HOP: 0,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  DESTINATION_OPTIONS: 60,
} as const;

export const Tcp = {
  SEQUENCE: 4,
  ACKNOWLEDGEMENT: 8,
  WORDS: 12,
  FLAGS: 13,
  CHECKSUM: 16,
  MIN_HEADER_BYTES: 20,
} as const;

export const TcpFlag = { FIN: 0x01, SYN: 0x02, RST: 0x04, PSH: 0x08, ACK: 0x10, CWR: 0x80 } as const;

export const Udp = { LENGTH: 4, CHECKSUM: 6, HEADER_BYTES: 8 } as const;

/**
 * HEL: TCP segmentation, for a backend that takes no packet larger than its MTU (virtio 1.2, 5.1.6.2, VIRTIO_NET_HDR_GSO_TCPV4
 * and TCPV6). The headers of the large packet are repeated for each piece of `segmentBytes` of its payload, with
 * lengths, sequence number, identification, flags and checksums of its own.
 */
import { Ipv4, Ipv6, Tcp, TcpFlag } from '../../abi/inet.js';
import { writeChecksum, writeIpv4HeaderChecksum } from './checksum.js';
import { layoutOf, setU16, setU32, u16, u32, type FrameLayout } from './frame-layout.js';

/**
 * What a segment of a large packet has at least: no stack asks for less than an MSS of 536 bytes less its options
 * (RFC 9293, 3.7.1), and one large packet must not become thousands of frames.
 */
export const MIN_SEGMENT_BYTES = 256;
/** Only the last segment ends the stream or pushes; only the first says that the window was reduced (RFC 3168, 6.1.2). */
const LAST_ONLY = TcpFlag.FIN | TcpFlag.PSH;
const FIRST_ONLY = TcpFlag.CWR;

/**
 * The segments of a large TCP packet, each a frame of its own that is whole and has its checksums. Undefined for what is
 * no such packet, or what no segmentation is defined for.
 */
export function segmentTcp(frame: Uint8Array, segmentBytes: number): Uint8Array[] | undefined {
  const layout = layoutOf(frame);
  if (layout?.protocol !== 'tcp' || segmentBytes < 1) return undefined;
  const flags = frame[layout.transportAt + Tcp.FLAGS]!;
  if ((flags & (TcpFlag.SYN | TcpFlag.RST)) !== 0) return undefined;
  const segments: Uint8Array[] = [];
  let from = layout.payloadAt;
  do {
    const to = Math.min(from + segmentBytes, layout.endAt);
    segments.push(oneSegment(frame, layout, segments.length, from, to));
    from = to;
  } while (from < layout.endAt);
  return segments;
}

function oneSegment(frame: Uint8Array, whole: FrameLayout, index: number, from: number, to: number): Uint8Array {
  const { ipAt, transportAt, payloadAt, version } = whole;
  const segment = new Uint8Array(payloadAt + to - from);
  segment.set(frame.subarray(0, payloadAt));
  segment.set(frame.subarray(from, to), payloadAt);
  const layout = { ...whole, endAt: segment.length };
  if (version === 4) {
    setU16(segment, ipAt + Ipv4.TOTAL_BYTES, layout.endAt - ipAt);
    setU16(segment, ipAt + Ipv4.ID, (u16(frame, ipAt + Ipv4.ID) + index) & 0xffff);
    writeIpv4HeaderChecksum(segment, layout);
  } else {
    setU16(segment, ipAt + Ipv6.PAYLOAD_BYTES, layout.endAt - ipAt - Ipv6.HEADER_BYTES);
  }
  setU32(segment, transportAt + Tcp.SEQUENCE, (u32(frame, transportAt + Tcp.SEQUENCE) + from - payloadAt) >>> 0);
  let flags = frame[transportAt + Tcp.FLAGS]!;
  if (to !== whole.endAt) flags &= ~LAST_ONLY;
  if (index !== 0) flags &= ~FIRST_ONLY;
  segment[transportAt + Tcp.FLAGS] = flags;
  writeChecksum(segment, layout);
  return segment;
}

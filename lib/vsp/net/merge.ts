/**
 * HEL: receive merging. Frames that came together are looked through once: segments of one TCP stream that follow each
 * other become one large packet with the headers of the first, as a device with that function would give it. What
 * can't be merged keeps its place behind what it follows in its own stream. Only whole frames with right checksums
 * are merged, and segmentTcp() gives them back byte for byte: that is the test of a merge. Segments too short for a large
 * packet stay as they are.
 */
import { Ipv4, Ipv6, Tcp, TcpFlag } from '../../abi/inet.js';
import {
  checksumAt,
  folded,
  hasRightChecksum,
  hasRightHeaderChecksum,
  pseudoHeaderSum,
  writeIpv4HeaderChecksum,
} from './checksum.js';
import { layoutOf, setU16, u16, u32, type FrameLayout } from './frame-layout.js';
import { MIN_SEGMENT_BYTES } from './segment.js';

export interface MergedFrame {
  readonly bytes: Uint8Array;
  /** Payload of each segment but the last; undefined for a frame that stands as it came. */
  readonly segmentBytes: number | undefined;
  readonly segments: number;
}

/** With its IP header, what a 16-bit length can say. */
const MAX_PACKET_BYTES = 65535;

/** Frames that may become one, gathered. */
interface Run {
  readonly first: Uint8Array;
  readonly layout: FrameLayout;
  readonly segmentBytes: number;
  readonly payloads: Uint8Array[];
  lengthBytes: number;
  /** A short segment or a push has ended it. */
  closed: boolean;
  pushed: boolean;
}

export function mergeTcp(frames: readonly Uint8Array[]): MergedFrame[] {
  const runs: Run[] = [];
  const open = new Map<string, Run>();
  for (const frame of frames) {
    const layout = layoutOf(frame);
    const stream = layout?.protocol === 'tcp' ? streamOf(frame, layout) : undefined;
    if (layout === undefined || stream === undefined) {
      runs.push(alone(frame));
      continue;
    }
    const run = open.get(stream);
    if (run !== undefined && append(run, frame, layout)) continue;
    const next = startOf(frame, layout);
    runs.push(next);
    open.set(stream, next);
  }
  return runs.map(finished);
}

/** Addresses and ports, as text of their bytes. */
function streamOf(frame: Uint8Array, { version, ipAt, transportAt }: FrameLayout): string {
  const from = ipAt + (version === 4 ? Ipv4.SOURCE : Ipv6.SOURCE);
  const addresses = frame.subarray(from, from + (version === 4 ? 8 : 32));
  return (
    Buffer.from(addresses).toString('latin1') +
    Buffer.from(frame.subarray(transportAt, transportAt + 4)).toString('latin1')
  );
}

function alone(frame: Uint8Array): Run {
  const layout = { version: 4, protocol: 'tcp', ipAt: 0, transportAt: 0, payloadAt: 0, endAt: frame.length } as const;
  return {
    first: frame,
    layout,
    segmentBytes: 0,
    payloads: [],
    lengthBytes: frame.length,
    closed: true,
    pushed: false,
  };
}

function startOf(frame: Uint8Array, layout: FrameLayout): Run {
  const payload = frame.subarray(layout.payloadAt, layout.endAt);
  const mergeable = payload.length >= MIN_SEGMENT_BYTES && isPlain(frame, layout);
  return {
    first: frame,
    layout,
    segmentBytes: payload.length,
    payloads: [payload],
    lengthBytes: layout.endAt - layout.ipAt,
    closed: !mergeable || pushes(frame, layout),
    pushed: false,
  };
}

function append(run: Run, frame: Uint8Array, layout: FrameLayout): boolean {
  const payload = frame.subarray(layout.payloadAt, layout.endAt);
  if (run.closed || payload.length === 0 || payload.length > run.segmentBytes) return false;
  if (run.lengthBytes + payload.length > MAX_PACKET_BYTES) return false;
  if (!isPlain(frame, layout) || !follows(run, frame, layout)) return false;
  run.payloads.push(payload);
  run.lengthBytes += payload.length;
  run.pushed = pushes(frame, layout);
  run.closed = payload.length < run.segmentBytes || run.pushed;
  return true;
}

/** A whole segment of data: nothing behind the packet but padding, an acknowledgement and no other flag than a push. */
function isPlain(frame: Uint8Array, layout: FrameLayout): boolean {
  const flags = frame[layout.transportAt + Tcp.FLAGS]!;
  if ((flags & ~TcpFlag.PSH) !== TcpFlag.ACK) return false;
  if (layout.version === 4 && layout.transportAt - layout.ipAt !== Ipv4.MIN_HEADER_BYTES) return false;
  return hasRightHeaderChecksum(frame, layout) && hasRightChecksum(frame, layout);
}

function pushes(frame: Uint8Array, layout: FrameLayout): boolean {
  return (frame[layout.transportAt + Tcp.FLAGS]! & TcpFlag.PSH) !== 0;
}

/** The segment that segmentTcp() would make next: the same headers but for what it changes there. */
function follows(run: Run, frame: Uint8Array, layout: FrameLayout): boolean {
  const { first, layout: whole, payloads } = run;
  const { version, ipAt, transportAt, payloadAt } = whole;
  if (ipAt !== layout.ipAt || transportAt !== layout.transportAt || payloadAt !== layout.payloadAt) return false;
  const offset = run.lengthBytes - (payloadAt - ipAt);
  const sequence = (u32(first, transportAt + Tcp.SEQUENCE) + offset) >>> 0;
  if (u32(frame, transportAt + Tcp.SEQUENCE) !== sequence) return false;
  if (version === 4 && u16(frame, ipAt + Ipv4.ID) !== ((u16(first, ipAt + Ipv4.ID) + payloads.length) & 0xffff))
    return false;
  for (let at = 0; at < payloadAt; at++) {
    if (first[at] !== frame[at] && !isOwn(at, whole)) return false;
  }
  return true;
}

/** Fields that each segment has of its own. */
function isOwn(at: number, { version, ipAt, transportAt }: FrameLayout): boolean {
  const inIp = at - ipAt;
  const inTcp = at - transportAt;
  if (inTcp >= 0) {
    return (
      (inTcp >= Tcp.SEQUENCE && inTcp < Tcp.SEQUENCE + 4) ||
      inTcp === Tcp.FLAGS ||
      (inTcp >= Tcp.CHECKSUM && inTcp < Tcp.CHECKSUM + 2)
    );
  }
  if (version === 6) return inIp === Ipv6.PAYLOAD_BYTES || inIp === Ipv6.PAYLOAD_BYTES + 1;
  return (inIp >= Ipv4.TOTAL_BYTES && inIp < Ipv4.ID + 2) || inIp === Ipv4.CHECKSUM || inIp === Ipv4.CHECKSUM + 1;
}

function finished(run: Run): MergedFrame {
  const { first, layout, payloads, segmentBytes } = run;
  if (payloads.length < 2) return { bytes: first, segmentBytes: undefined, segments: 1 };
  const { version, ipAt, transportAt, payloadAt } = layout;
  const bytes = new Uint8Array(ipAt + run.lengthBytes);
  bytes.set(first.subarray(0, payloadAt));
  let at = payloadAt;
  for (const payload of payloads) {
    bytes.set(payload, at);
    at += payload.length;
  }
  const whole = { ...layout, endAt: bytes.length };
  if (version === 4) {
    setU16(bytes, ipAt + Ipv4.TOTAL_BYTES, run.lengthBytes);
    writeIpv4HeaderChecksum(bytes, whole);
  } else {
    setU16(bytes, ipAt + Ipv6.PAYLOAD_BYTES, run.lengthBytes - Ipv6.HEADER_BYTES);
  }
  // Only the last of a run may push.
  if (run.pushed) bytes[transportAt + Tcp.FLAGS]! |= TcpFlag.PSH;
  // As the driver wants it of a large packet: the sum of the pseudo header alone.
  setU16(bytes, checksumAt(whole), folded(pseudoHeaderSum(bytes, whole)));
  return { bytes, segmentBytes, segments: payloads.length };
}

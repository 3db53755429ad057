/**
 * Packets for tests, written plainly from the RFCs and sharing nothing with the code that they test: fields are put down
 * one after the other, checksums are added up byte by byte.
 */

import type { BackendDescription } from '../contract.js';
import type { NetAbilities, NetBackend, NetFrame, NetGuestEnd, NetHostEnd } from './contract.js';
import { layoutOf } from './frame-layout.js';
import { keptFrame } from './kept-frame.js';
import { lendingHost } from './testing-lent.js';

export interface PacketOptions {
  readonly version: 4 | 6;
  readonly protocol?: 'tcp' | 'udp';
  readonly payload: Uint8Array;
  readonly vlanTags?: number;
  readonly sequence?: number;
  readonly id?: number;
  readonly flags?: number;
  /** Whole words of four bytes. */
  readonly tcpOptions?: Uint8Array;
  readonly ports?: readonly [number, number];
  /** IPv6: a header of destination options in front of the transport's, a multiple of eight. */
  readonly extensionBytes?: number;
}

export const ACK = 0x10;
export const PSH_ACK = 0x18;

/** A frame with right lengths and checksums. */
export function packet(options: PacketOptions): Uint8Array {
  const { version, protocol = 'tcp', payload, vlanTags = 0, sequence = 1, id = 1, flags = ACK } = options;
  const { tcpOptions = new Uint8Array(0), ports = [1000, 80], extensionBytes = 0 } = options;
  const transport =
    protocol === 'tcp'
      ? [...be(ports[0], 2), ...be(ports[1], 2), ...be(sequence, 4), ...be(77, 4)].concat(
          [(5 + tcpOptions.length / 4) * 16, flags],
          [...be(500, 2), 0, 0, 0, 0, ...tcpOptions],
        )
      : [...be(ports[0], 2), ...be(ports[1], 2), ...be(8 + payload.length, 2), 0, 0];
  const bytes = transport.length + payload.length;
  const addresses = Array.from({ length: version === 4 ? 8 : 32 }, (_, index) => 10 + index);
  const number = protocol === 'tcp' ? 6 : 17;
  const ip =
    version === 4
      ? [0x45, 0, ...be(20 + bytes, 2), ...be(id, 2), 0x40, 0, 64, number, 0, 0, ...addresses]
      : [0x60, 0, 0, 0, ...be(extensionBytes + bytes, 2), extensionBytes > 0 ? 60 : number, 64, ...addresses];
  if (version === 4) ip.splice(10, 2, ...be(plainChecksum(ip), 2));
  const checked = [...addresses, ...be(number, 2), ...be(bytes, 2), ...transport, ...payload];
  transport.splice(protocol === 'tcp' ? 16 : 6, 2, ...be(plainChecksum(checked) || 0xffff, 2));
  const tags = Array.from({ length: vlanTags }, () => [0x81, 0, 0, 5]).flat();
  const ether = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...tags, ...be(version === 4 ? 0x0800 : 0x86dd, 2)];
  const extension = Array.from({ length: extensionBytes }, () => 0);
  if (extensionBytes > 0) extension.splice(0, 2, number, extensionBytes / 8 - 1);
  return Uint8Array.from([...ether, ...ip, ...extension, ...transport, ...payload]);
}

/** RFC 1071, word by word with the carry put back at once. */
export function plainChecksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += bytes[at]! * 256 + (bytes[at + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

function be(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, index) => Math.floor(value / 256 ** (bytes - 1 - index)) % 256);
}

/** A network that keeps what it is sent and lends what a test puts in. */
export class FakeNetwork implements NetBackend {
  readonly sent: NetFrame[] = [];
  readonly mtuBytes: number;
  readonly takes: NetAbilities;
  readonly gives: NetBackend['gives'];
  /** For a test: what is given through it is overwritten afterwards. */
  host!: NetHostEnd;
  more = true;
  paused = false;
  closed = false;

  constructor(
    options: { takes?: Partial<NetAbilities>; gives?: Partial<NetBackend['gives']>; mtuBytes?: number } = {},
  ) {
    this.takes = { checksum: false, segments: false, ...options.takes };
    this.gives = { checked: false, merged: false, ...options.gives };
    this.mtuBytes = options.mtuBytes ?? 1500;
  }
  start(host: NetHostEnd): void {
    this.host = lendingHost(host);
  }
  send(frames: readonly NetFrame[]): boolean {
    // As every backend: the bytes are the sender's again afterwards.
    this.sent.push(...frames.map(keptFrame));
    return this.more;
  }
  setPaused(paused: boolean): void {
    this.paused = paused;
  }
  describe(): BackendDescription {
    return { kind: 'fake' };
  }
  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

/** A guest that takes what it says, as many frames as it has room for. */
export class FakeGuest implements NetGuestEnd {
  readonly got: NetFrame[] = [];
  readonly links: boolean[] = [];
  readonly checksum: boolean;
  readonly segments: boolean;
  room = Number.POSITIVE_INFINITY;

  constructor(checksum = false, segments = false) {
    this.checksum = checksum;
    this.segments = segments;
  }
  receive(frames: readonly NetFrame[]): number {
    const taken = frames.slice(0, this.room);
    this.room -= taken.length;
    this.got.push(...taken.map(keptFrame));
    return taken.length;
  }
  link(up: boolean): void {
    this.links.push(up);
  }
}

/** The same network with every function of its own switched off. */
export function withoutNative(backend: NetBackend): NetBackend {
  return new Proxy(backend, {
    get(target, name) {
      if (name === 'takes') return { checksum: false, segments: false };
      if (name === 'gives') return { checked: false, merged: false };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** As a guest leaves a frame to its device: the sum of the pseudo header where the checksum is to be. */
export function unfinished(frame: Uint8Array, segmentBytes?: number): NetFrame {
  const layout = layoutOf(frame)!;
  const bytes = frame.slice();
  const { ipAt, version, transportAt, protocol } = layout;
  const addresses = bytes.subarray(ipAt + (version === 4 ? 12 : 8), ipAt + (version === 4 ? 20 : 40));
  const length = layout.endAt - transportAt;
  const sum = 0xffff - plainChecksum([...addresses, 0, protocol === 'tcp' ? 6 : 17, length >> 8, length & 255]);
  const offset = protocol === 'tcp' ? 16 : 6;
  bytes[transportAt + offset] = sum >> 8;
  bytes[transportAt + offset + 1] = sum;
  return { bytes, unfinished: { startAt: transportAt, offset }, segmentBytes };
}

/**
 * What every frame holds to that comes out of a reader of other processes' bytes, so that nobody behind it reads outside of one or
 * makes thousands of it. Throws where it does not.
 */
export function checkFrame({ bytes, unfinished, segmentBytes }: NetFrame, leastSegmentBytes = 1): void {
  if (bytes.length < 14 || bytes.length > 65557) throw new Error(`a frame of ${bytes.length} bytes`);
  if (unfinished !== undefined && unfinished.startAt + unfinished.offset + 2 > bytes.length) {
    throw new Error(`a checksum at ${unfinished.startAt} + ${unfinished.offset} of ${bytes.length} bytes`);
  }
  if (segmentBytes !== undefined && (segmentBytes < leastSegmentBytes || unfinished === undefined)) {
    throw new Error(`segments of ${segmentBytes} bytes`);
  }
}

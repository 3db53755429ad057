/**
 * What stands in front of a frame where it leaves this process: struct virtio_net_hdr with its count of buffers (virtio
 * 1.2, 5.1.6), little endian, as taps have it and as the links between switches do. It says what is unfinished about the
 * frame, and is held against the frame that follows, since a peer may say anything.
 */
import { Ether, Tcp, TcpFlag } from '../../abi/inet.js';
import { VirtioNetGso, VirtioNetHdr, VirtioNetHdrFlag } from '../../abi/virtio.js';
import type { NetFrame } from './contract.js';
import { layoutOf } from './frame-layout.js';

/** A packet of the greatest length, with Ethernet's header and two tags. */
export const MAX_FRAME_BYTES = 65535 + 22;

/** Writes the header of `frame` to `all`, from `at` on. A large packet that is none goes as a frame with its checksum to do. */
export function writeHeader(frame: NetFrame, all: Uint8Array, at = 0): void {
  const { unfinished, segmentBytes, checked, bytes } = frame;
  all.fill(0, at, at + VirtioNetHdr.SIZE);
  const set16 = (offset: number, value: number) => {
    all[at + offset] = value;
    all[at + offset + 1] = value >>> 8;
  };
  if (unfinished !== undefined) {
    all[at + VirtioNetHdr.FLAGS] = VirtioNetHdrFlag.NEEDS_CSUM;
    set16(VirtioNetHdr.CSUM_START, unfinished.startAt);
    set16(VirtioNetHdr.CSUM_OFFSET, unfinished.offset);
  } else if (checked === true) {
    all[at + VirtioNetHdr.FLAGS] = VirtioNetHdrFlag.DATA_VALID;
  }
  if (segmentBytes === undefined || unfinished === undefined) return;
  const layout = layoutOf(bytes);
  if (layout?.protocol !== 'tcp') return;
  const reducesWindow = (bytes[layout.transportAt + Tcp.FLAGS]! & TcpFlag.CWR) !== 0;
  const type = layout.version === 4 ? VirtioNetGso.TCPV4 : VirtioNetGso.TCPV6;
  all[at + VirtioNetHdr.GSO_TYPE] = type | (reducesWindow ? VirtioNetGso.ECN : 0);
  set16(VirtioNetHdr.HDR_LEN, layout.payloadAt);
  set16(VirtioNetHdr.GSO_SIZE, segmentBytes);
}

/** The frame behind a header, sharing its bytes; undefined where the two do not fit, or for an offload that we have not. */
export function frameBehind(all: Uint8Array): NetFrame | undefined {
  if (all.length < VirtioNetHdr.SIZE + Ether.HEADER_BYTES) return undefined;
  const bytes = all.subarray(VirtioNetHdr.SIZE);
  const flags = all[VirtioNetHdr.FLAGS]!;
  const gso = all[VirtioNetHdr.GSO_TYPE]! & ~VirtioNetGso.ECN;
  if ((flags & VirtioNetHdrFlag.NEEDS_CSUM) === 0) {
    if (gso !== VirtioNetGso.NONE) return undefined;
    return (flags & VirtioNetHdrFlag.DATA_VALID) === 0 ? { bytes } : { bytes, checked: true };
  }
  const startAt = le16(all, VirtioNetHdr.CSUM_START);
  const offset = le16(all, VirtioNetHdr.CSUM_OFFSET);
  if (startAt + offset + 2 > bytes.length) return undefined;
  const unfinished = { startAt, offset };
  if (gso === VirtioNetGso.NONE) return { bytes, unfinished };
  const segmentBytes = le16(all, VirtioNetHdr.GSO_SIZE);
  if ((gso !== VirtioNetGso.TCPV4 && gso !== VirtioNetGso.TCPV6) || segmentBytes === 0) return undefined;
  return { bytes, unfinished, segmentBytes };
}

function le16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

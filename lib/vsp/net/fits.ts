/**
 * What a network of some MTU carries: frames that are not longer, and large TCP packets whose segments are not. Held
 * against frames of a guest, and again where they come out of another process, which may say anything.
 */
import { Ether, VLAN_TAG_BYTES } from '../../abi/inet.js';
import type { NetFrame } from './contract.js';
import { layoutOf } from './frame-layout.js';
import { MIN_SEGMENT_BYTES } from './segment.js';

/** The least that IPv4 wants (RFC 791), and what a driver takes (virtio 1.2, 5.1.4.1). */
export const MIN_MTU_BYTES = 68;
export const MAX_MTU_BYTES = 65521;
/** A packet of the greatest length behind its header. */
const MAX_PACKET_BYTES = 65535;
const MAX_TAGS_BYTES = 2 * VLAN_TAG_BYTES;
/** What a segment's headers have at most: one large packet must not become copies of long headers. */
const MAX_HEADER_BYTES = 256;

/** Whether it is a frame that a network of this MTU carries, whole or in the segments that it asks for. */
export function fits({ bytes, segmentBytes }: NetFrame, mtuBytes: number): boolean {
  if (bytes.length < Ether.HEADER_BYTES) return false;
  const room = Ether.HEADER_BYTES + MAX_TAGS_BYTES;
  if (segmentBytes === undefined) return bytes.length <= room + mtuBytes;
  if (bytes.length > room + MAX_PACKET_BYTES || segmentBytes < MIN_SEGMENT_BYTES) return false;
  const layout = layoutOf(bytes);
  if (layout?.protocol !== 'tcp') return false;
  const headerBytes = layout.payloadAt - layout.ipAt;
  return headerBytes <= MAX_HEADER_BYTES && headerBytes + segmentBytes <= mtuBytes;
}

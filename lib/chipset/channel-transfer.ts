/**
 * The transfer page of the guest channel (lib/abi/guest-channel.ts): its segment list read once and checked as a whole,
 * and bytes scattered to and gathered from the segments. Everything in the page is the guest's word; nothing is moved
 * before all of it is found to lie in guest RAM.
 */
import { GuestChannelValue, TransferPage } from '../abi/guest-channel.js';
import type { GuestMemory } from '../memory/guest-memory.js';

export interface Segment {
  readonly gpa: number;
  readonly length: number;
}

const MAX_ADDRESS = 2n ** 52n - 1n;

/** The segments of a copied transfer page, or undefined when the list is not to be used. */
export function readSegments(memory: GuestMemory, page: Uint8Array): Segment[] | undefined {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const count = view.getUint32(TransferPage.COUNT, true);
  if (count === 0 || count > GuestChannelValue.MAX_SEGMENTS) return undefined;
  const segments: Segment[] = [];
  let sum = 0;
  for (let index = 0; index < count; index++) {
    const at = TransferPage.SEGMENTS + index * TransferPage.SEGMENT_STRIDE;
    const address = view.getBigUint64(at + TransferPage.SEGMENT_GPA, true);
    const length = view.getUint32(at + TransferPage.SEGMENT_LENGTH, true);
    sum += length;
    if (address > MAX_ADDRESS || sum > GuestChannelValue.MAX_TRANSFER_BYTES) return undefined;
    const gpa = Number(address);
    if (!memory.contains(gpa, length)) return undefined;
    segments.push({ gpa, length });
  }
  return segments;
}

/** Writes `bytes` into the segments, in order; they have room for it. */
export function scatter(memory: GuestMemory, segments: readonly Segment[], bytes: Uint8Array): void {
  let done = 0;
  for (const { gpa, length } of segments) {
    const count = Math.min(length, bytes.length - done);
    if (count === 0) continue;
    memory.write(gpa, bytes.subarray(done, done + count));
    done += count;
  }
}

/** Fills `target` from the segments, in order; they hold as much. */
export function gather(memory: GuestMemory, segments: readonly Segment[], target: Uint8Array): void {
  let done = 0;
  for (const { gpa, length } of segments) {
    const count = Math.min(length, target.length - done);
    if (count === 0) continue;
    memory.readInto(gpa, target.subarray(done, done + count));
    done += count;
  }
}

/** The bytes that the segments hold together. */
export function totalBytes(segments: readonly Segment[]): number {
  return segments.reduce((sum, segment) => sum + segment.length, 0);
}

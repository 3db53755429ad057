/**
 * HEL: a frame for somebody who takes less than it wants. Unfinished checksums are finished, large packets are cut, for
 * a backend on the way out and for a guest on the way in. What is no frame any more after that is left out.
 */
import { checksumAt, finishChecksum, hasRightChecksum, hasRightHeaderChecksum } from './checksum.js';
import type { NetAbilities, NetFrame } from './contract.js';
import { layoutOf } from './frame-layout.js';
import { mergeTcp } from './merge.js';
import { segmentTcp } from './segment.js';

/** Who counts what was done in software: frames of each function. */
export interface AdaptCounts {
  checksums: number;
  segmented: number;
  dropped: number;
}

/** Appends to `out` what `frame` is for someone who takes `takes`. `owned`: its bytes may be changed in place. */
export function adapt(
  frame: NetFrame,
  takes: NetAbilities,
  owned: boolean,
  out: NetFrame[],
  counts: AdaptCounts,
): void {
  if (frame.segmentBytes !== undefined) {
    if (takes.segments) {
      out.push(frame);
      return;
    }
    const segments = segmentTcp(frame.bytes, frame.segmentBytes);
    if (segments === undefined) counts.dropped++;
    else {
      counts.segmented++;
      // They have checksums that we made of what was there: as good as the frame was.
      for (const bytes of segments) out.push({ bytes, checked: true });
    }
    return;
  }
  if (frame.unfinished === undefined || takes.checksum) {
    out.push(frame);
    return;
  }
  const bytes = owned ? frame.bytes : frame.bytes.slice();
  if (!finishChecksum(bytes, frame.unfinished.startAt, frame.unfinished.offset)) counts.dropped++;
  else {
    counts.checksums++;
    out.push({ bytes, checked: true });
  }
}

/** The frame, marked if its checksum is right. What has none, or a wrong one, is the guest's to judge. */
export function checkedFrame(frame: NetFrame): NetFrame {
  if (frame.checked === true || frame.unfinished !== undefined || frame.segmentBytes !== undefined) return frame;
  const layout = layoutOf(frame.bytes);
  if (layout === undefined) return frame;
  const right = hasRightHeaderChecksum(frame.bytes, layout) && hasRightChecksum(frame.bytes, layout);
  return right ? { bytes: frame.bytes, checked: true } : frame;
}

/** Segments of one stream that came in one batch as large packets. Frames that are more than plain keep their place. */
export function mergedFrames(frames: readonly NetFrame[]): readonly NetFrame[] {
  if (frames.length < 2) return frames;
  const merged: NetFrame[] = [];
  for (let at = 0; at < frames.length;) {
    const from = at;
    while (at < frames.length && isPlain(frames[at]!)) at++;
    if (at === from) {
      merged.push(frames[at++]!);
      continue;
    }
    const run = frames.slice(from, at);
    for (const { bytes, segmentBytes } of mergeTcp(run.map((frame) => frame.bytes))) {
      if (segmentBytes === undefined) merged.push(run.find((frame) => frame.bytes === bytes)!);
      else {
        const layout = layoutOf(bytes)!;
        const startAt = layout.transportAt;
        merged.push({ bytes, segmentBytes, unfinished: { startAt, offset: checksumAt(layout) - startAt } });
      }
    }
  }
  return merged;
}

function isPlain(frame: NetFrame): boolean {
  return frame.unfinished === undefined && frame.segmentBytes === undefined;
}

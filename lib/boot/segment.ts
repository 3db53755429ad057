/**
 * From a file into guest memory: the one step of loading that a faster way may replace, such as a read straight into
 * the mapping by native code. The default copies in pieces, so that a kernel of 50 MB needs no buffer of its size.
 */
import type { GuestMemory } from '../memory/guest-memory.js';
import type { ImageFile } from './errors.js';

/** Puts `length` bytes of the file at `fileOffset` to `gpa`. Both ranges have been checked. */
export type SegmentLoader = (
  memory: GuestMemory,
  file: ImageFile,
  fileOffset: number,
  gpa: number,
  length: number,
) => void;

const CHUNK_BYTES = 1024 * 1024;

export const copySegment: SegmentLoader = (memory, file, fileOffset, gpa, length) => {
  const chunk = new Uint8Array(Math.min(length, CHUNK_BYTES));
  for (let done = 0; done < length; done += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, length - done));
    file.readInto(fileOffset + done, part);
    memory.write(gpa + done, part);
  }
};

/**
 * From a file into guest memory: the step of loading that moves the bytes. Where guest memory has views, the file is
 * read straight into them; elsewhere it is copied in pieces, so that a kernel of 50 MB needs no buffer of its size.
 */
import { MiB } from '../base/units.js';
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

/** Guest memory that gives views of itself, as AddressSpace does. No view crosses a multiple of VIEW_BYTES. */
interface WindowedMemory extends GuestMemory {
  window(gpa: number, length: number): Uint8Array;
  markDirty(gpa: number, length: number): void;
}

const VIEW_BYTES = 16 * MiB;
const CHUNK_BYTES = 1024 * 1024;

function hasWindows(memory: GuestMemory): memory is WindowedMemory {
  return 'window' in memory && 'markDirty' in memory;
}

/** The ordinary SegmentLoader. */
export const copySegment: SegmentLoader = (memory, file, fileOffset, gpa, length) => {
  if (hasWindows(memory)) {
    for (let done = 0; done < length;) {
      const at = gpa + done;
      const part = Math.min(length - done, VIEW_BYTES - (at % VIEW_BYTES));
      file.readInto(fileOffset + done, memory.window(at, part));
      memory.markDirty(at, part);
      done += part;
    }
    return;
  }
  const chunk = new Uint8Array(Math.min(length, CHUNK_BYTES));
  for (let done = 0; done < length; done += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, length - done));
    file.readInto(fileOffset + done, part);
    memory.write(gpa + done, part);
  }
};

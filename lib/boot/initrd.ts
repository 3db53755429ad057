/**
 * The initial RAM disk: one or more archives put one after another at the top of low RAM. Linux unpacks such a row of
 * archives in order (Documentation/driver-api/early-userspace/buffer-format.rst), with zeros allowed between them.
 */
import { alignUp, formatSize } from '../base/units.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { imageError, memoryImage, openImage, type ImageFile } from './errors.js';
import { placeHigh, type Region } from './layout.js';
import type { SegmentLoader } from './segment.js';

/** A path, or bytes in memory; or several of them, which the kernel sees as one. */
export type InitrdSource = string | Uint8Array | readonly (string | Uint8Array)[];

/** Archives start on this boundary (buffer-format.rst: cpio headers are aligned to 4). */
const ALIGNMENT = 4;

/**
 * Loads the initrd as high as it may be.
 *
 * @param floor end of what the kernel takes. @param limit first address that the kernel cannot take an initrd at.
 * @throws VmmError ERR_KERNEL_IMAGE when a file cannot be read, or guest memory is too small.
 */
export function loadInitrd(
  memory: GuestMemory,
  source: InitrdSource,
  floor: number,
  limit: number,
  loadSegment: SegmentLoader,
): Region {
  const sources = typeof source === 'string' || source instanceof Uint8Array ? [source] : source;
  const files: ImageFile[] = [];
  try {
    for (const part of sources) {
      files.push(typeof part === 'string' ? openImage('initrd', part) : memoryImage('initrd', part));
    }
    const sizeBytes = files.reduce((sum, file) => alignUp(sum, ALIGNMENT) + file.sizeBytes, 0);
    const label = files[0]?.label ?? 'initrd';
    if (sizeBytes === 0) throw imageError(label, 'it is empty', 'give an archive, or no initrd at all');
    const start = placeHigh(memory, sizeBytes, floor, limit);
    if (start === undefined) {
      throw imageError(
        label,
        `its ${formatSize(sizeBytes)} do not fit into guest memory of ${formatSize(memory.sizeBytes)} beside the kernel`,
        'give the machine more memory, or a smaller initrd',
      );
    }
    let at = start;
    for (const file of files) {
      const aligned = alignUp(at - start, ALIGNMENT) + start;
      if (aligned > at) memory.fill(at, 0, aligned - at);
      loadSegment(memory, file, 0, aligned, file.sizeBytes);
      at = aligned + file.sizeBytes;
    }
    return { name: 'the initrd', start, end: at };
  } finally {
    for (const file of files) file.close();
  }
}

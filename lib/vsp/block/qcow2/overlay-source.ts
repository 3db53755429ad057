/** An image over another disk as `BlockSource.overlay` gives it, for raw and qcow2 disks: it may read the folder of the one below. */
import path from 'node:path';
import type { DiskOverlay } from '../source.js';
import { createQcow2Overlay } from './create.js';
import { qcow2Disk, type Qcow2DiskOptions } from './index.js';

export function overlayOn(below: DiskOverlay['below'], file: string, options: Qcow2DiskOptions): DiskOverlay {
  const { lock, backingFolders = [], cacheBytes } = options;
  return {
    below: { ...below, path: path.resolve(below.path) },
    create: (sizeBytes) =>
      createQcow2Overlay(file, { backing: below.path, backingFormat: below.format, sizeBytes, mode: 0o600 }),
    source: qcow2Disk(file, {
      backingFolders: [...backingFolders, path.dirname(path.resolve(below.path))],
      ...(lock && { lock }),
      ...(cacheBytes !== undefined && { cacheBytes }),
    }),
  };
}

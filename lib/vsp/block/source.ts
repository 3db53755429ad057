/**
 * A backend before it is opened: what `fileDisk(path)` and its siblings return, what a machine's configuration and
 * `rebind` take. Opening needs the machine's I/O engine, so it happens when the machine is made. A source may be
 * opened again: after a reset, for a restore.
 */
import type { Logger } from '../../base/logger.js';
import type { IoEngine } from '../../memory/io-engine.js';
import type { BackendDescription } from '../contract.js';
import type { BlockBackend } from './contract.js';

export interface BlockOpenContext {
  readonly engine: IoEngine;
  readonly logger: Logger;
  /** The device only reads: take a shared lock, open without write access. */
  readonly readOnly: boolean;
  /**
   * The device it is opened for. Backends of one owner may have the same image open at once, which happens for the
   * moment of a rebind; anybody else finds it locked. Missing: an owner of its own.
   */
  readonly owner?: object | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An empty image over a disk, which is then only read: how a disk is cut at an instant. */
export interface DiskOverlay {
  /** What the disk below is, and where. */
  readonly below: { readonly path: string; readonly format: 'raw' | 'qcow2' };
  /** Makes the image, of the size that the guest knows. @throws VmmError ERR_DISK_IMAGE */
  create(sizeBytes: number): Promise<void>;
  /** The disk that reads through it. */
  readonly source: BlockSource;
}

export interface BlockSource {
  readonly class: 'block';
  describe(): BackendDescription;
  /**
   * @throws VmmError ERR_DISK_IMAGE (missing, a directory, empty, unaligned, truncated, corrupt), ERR_DISK_LOCKED
   *   (another process has it), ERR_SYSTEM; each names the path and, where there is one, the cure. AbortError.
   */
  open(context: BlockOpenContext): Promise<BlockBackend>;
  /** An image over this disk, in a file that does not exist yet. Missing: it can't be cut so. */
  overlay?(file: string): DiskOverlay;
}

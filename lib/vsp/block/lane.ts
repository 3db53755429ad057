/**
 * One opened backend with everything that it lacks: the join of HAL and HEL below the provider. A rebind makes a new
 * lane; the overlay, which holds the guest's own changes, goes from lane to lane.
 *
 *   provider -> io: [overlay ->] [small blocks ->] backend            (read, write: one call when both are absent)
 *            -> discard, write-zeroes, flush: io's own, or the HEL's
 */
import type { ServedBy } from '../contract.js';
import { SECTOR_BYTES, type BlockBackend, type BlockFunction } from './contract.js';
import type { CopyOnWriteOverlay } from './hel/overlay.js';
import { SmallBlocks } from './hel/small-blocks.js';
import { topologyOf } from './hel/topology.js';

export class BlockLane {
  readonly backend: BlockBackend;
  /** Takes every request in units of 512 bytes; lacks the methods that are emulated above it. */
  readonly io: BlockBackend;
  readonly overlay: CopyOnWriteOverlay | undefined;
  /** Unit in which requests must be kept apart. */
  readonly unitBytes: number;
  /** The backend turned out to be unable to do it; of write-zeroes, also to keep the place. */
  readonly #unable = new Set<'discard' | 'write-zeroes' | 'keeping'>();

  constructor(backend: BlockBackend, makeOverlay?: (base: BlockBackend) => CopyOnWriteOverlay) {
    this.backend = backend;
    const blockBytes = backend.geometry.blockBytes;
    const base = blockBytes > SECTOR_BYTES ? new SmallBlocks(backend) : backend;
    this.overlay = makeOverlay?.(base);
    this.io = this.overlay ?? base;
    this.unitBytes = Math.max(blockBytes, this.overlay?.blockBytes ?? SECTOR_BYTES);
  }

  /** The backend ended a discard with 'unsupported'. */
  emulateDiscards(): void {
    this.#unable.add('discard');
  }

  /** The same for write-zeroes. One that can't even when it may unmap can't at all. */
  emulateZeroes(mayUnmap: boolean): void {
    this.#unable.add(mayUnmap ? 'write-zeroes' : 'keeping');
  }

  /** Discard goes to `io`. */
  get discards(): boolean {
    return this.io.discard !== undefined && !this.#unable.has('discard');
  }

  /** Write-zeroes of this kind goes to `io`. */
  writesZeroes(mayUnmap: boolean): boolean {
    if (this.io.writeZeroes === undefined || this.#unable.has('write-zeroes')) return false;
    return mayUnmap || !this.#unable.has('keeping');
  }

  /** Who does a function; `serial` is the one that the guest sees. */
  servedBy(name: BlockFunction, serial: string): ServedBy {
    const native = (is: boolean): ServedBy => (is ? 'native' : 'emulated');
    const plain = this.overlay === undefined && this.backend.isStandIn !== true;
    switch (name) {
      case 'read':
      case 'write':
        return native(plain && this.backend.geometry.blockBytes === SECTOR_BYTES);
      case 'flush':
        return native(plain && this.backend.flush !== undefined);
      case 'discard':
        return native(plain && this.discards);
      case 'write-zeroes':
        // Native as long as one kind is.
        return native(plain && this.writesZeroes(true));
      case 'identify':
        return native(this.backend.identify?.() === serial);
      case 'resize':
        return native(this.backend.refreshGeometry !== undefined);
      case 'topology':
        return topologyOf(this.backend.geometry).by;
    }
  }
}

/**
 * The contract of the class *block*. Two borders use it: a proxy (vdp) calls a provider through BlockService, and the
 * provider calls a backend (HAL) through BlockBackend.
 *
 * | function     | meaning                                                                    | unit       |
 * |--------------|----------------------------------------------------------------------------|------------|
 * | read         | the newest data of a range                                                 | 512 bytes  |
 * | write        | seen by every later read; durable only after a flush                       | 512 bytes  |
 * | flush        | every write, discard and write-zeroes that was done before it is durable   | -          |
 * | discard      | the range's content is no longer needed; reads give old data or zeroes     | 512 bytes  |
 * | write-zeroes | reads give zeroes afterwards, by whichever means                           | 512 bytes  |
 * | identify     | a serial number of at most 20 ASCII characters                             | -          |
 * | resize       | the host changes the size, the guest is told                               | 512 bytes  |
 * | topology     | physical block and best sizes, a hint                                      | bytes      |
 *
 * Who validates: the *proxy* checks what the guest wrote as far as memory is concerned (every IoVector handed on lies
 * in guest memory). The *provider* checks offset, length, alignment to 512 bytes and the end of the disk, and refuses
 * changes of a read-only disk; a backend gets only ranges inside its size, not empty, in units of its own `blockBytes`,
 * and never two overlapping requests of which one changes data at the same time. The *backend* checks what it finds on
 * its medium.
 *
 * Completion: every call ends with exactly one call of its `done`, possibly before it returns. Nothing throws.
 *
 * What a backend can do may only be known by trying (hole punching on a file system): its discard and write-zeroes may
 * end with 'unsupported', with nothing changed. The provider then does this call and all later ones of its kind by
 * emulation; a write-zeroes that has to keep the space is a kind of its own, which a file system can lack alone.
 */
import type { IoVector } from '../../memory/io-vector.js';
import type { BackendDescription, DeviceContract } from '../contract.js';
import type { FrozenUnits } from './unit-store.js';

/** The unit of a guest's requests, whatever the medium has (virtio 1.2, 5.2.6). */
export const SECTOR_BYTES = 512;

export const BLOCK_FUNCTIONS = [
  'read',
  'write',
  'flush',
  'discard',
  'write-zeroes',
  'identify',
  'resize',
  'topology',
] as const;
export type BlockFunction = (typeof BLOCK_FUNCTIONS)[number];

/** Why a request failed. */
export type BlockErrorCode =
  | 'out-of-range' // beyond the end of the disk, or not in units of 512 bytes
  | 'read-only' // a change of a read-only disk
  | 'no-space' // the medium is full (ENOSPC, EDQUOT)
  | 'io' // the medium failed, or ended before its size says
  | 'corrupt' // the image's own structure is broken
  | 'unsupported' // not one of the functions offered
  | 'closed'; // the device was closed or taken away

/** A failed request: a value, never thrown. */
export interface BlockError {
  readonly code: BlockErrorCode;
  /** For the log: one line that names the thing. */
  readonly message: string;
  readonly cause?: unknown;
}

/** The end of a request: undefined when all of it was done. Data of a failed read is undefined. */
export type BlockDone = (error: BlockError | undefined) => void;

export interface BlockGeometry {
  /** A multiple of `blockBytes`. */
  readonly sizeBytes: number;
  /** Unit of reads and writes: 512 or a greater power of two, at most 1 MiB. */
  readonly blockBytes: number;
  /** What is changed at once without a read first. */
  readonly physicalBlockBytes: number;
  /** Best size of a request; 0 when unknown. */
  readonly optimalIoBytes: number;
}

/** What a backend does by itself; a method that is missing is what it can't do. */
export interface BlockBackend {
  readonly geometry: BlockGeometry;
  /**
   * What it was given stands on its medium only after a flush (the metadata of an image): another backend over the same
   * medium needs one first. Missing: at once, and a flush makes it durable, no more.
   */
  readonly writesBehind?: boolean | undefined;
  /** It stands in for a device that the host has taken back: nothing of what it does is native. */
  readonly isStandIn?: boolean | undefined;
  read(offset: number, data: IoVector, done: BlockDone): void;
  write?(offset: number, data: IoVector, done: BlockDone): void;
  /** Missing: what is done is as durable as it will ever be. */
  flush?(done: BlockDone): void;
  discard?(offset: number, lengthBytes: number, done: BlockDone): void;
  /** `mayUnmap`: the space may be given back. Unsupported with it, it is so without it too. */
  writeZeroes?(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void;
  /**
   * What it has been given and makes wait of its own accord (a rate limit) is not to wait any longer: the device waits for all of
   * it to end. Missing: it makes nothing wait.
   */
  hurry?(): void;
  /** The medium's own serial number. */
  identify?(): string;
  /** Called with the new geometry when the medium's size changed underneath, or by `resize`. */
  onGeometry?: ((geometry: BlockGeometry) => void) | undefined;
  /** Looks at the medium's size anew. Missing: it never changes. */
  refreshGeometry?(): Promise<BlockGeometry>;
  /**
   * Called once before the first request when this backend takes over from another one (rebind), which has been drained
   * by then, and flushed if it writes behind. A backend that keeps parts of its medium in memory reads them anew: the other one may have
   * changed them since open(). A rejection refuses the change.
   */
  activate?(): Promise<void>;
  /**
   * Called with nothing in flight when another backend is about to take over, which may stand on the same medium: writes
   * what close() would have to. It may go on serving, when the change is refused. A rejection refuses the change.
   */
  deactivate?(): Promise<void>;
  /**
   * Called with nothing in flight, before close(), when what is not on the medium yet is given up: another backend has
   * taken over, and nothing is written any more. Missing: close() writes nothing anyway.
   */
  abandon?(): void;
  /** Its contents as they are now, which are in memory and nowhere else: for a snapshot. Missing: they are elsewhere. */
  freeze?(): FrozenUnits;
  describe(): BackendDescription;
  /**
   * Called with nothing in flight: makes durable what was promised, gives locks and descriptors back. Idempotent. After
   * deactivate() and no change since, it writes nothing: another backend may have taken over the same medium.
   */
  close(): Promise<void>;
}

/** What the provider offers to a proxy: always all of it. */
export interface BlockService {
  readonly id: string;
  readonly readOnly: boolean;
  /** `blockBytes` is what requests may be as small as: SECTOR_BYTES. */
  readonly geometry: BlockGeometry;
  read(offset: number, data: IoVector, done: BlockDone): void;
  write(offset: number, data: IoVector, done: BlockDone): void;
  flush(done: BlockDone): void;
  discard(offset: number, lengthBytes: number, done: BlockDone): void;
  writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void;
  /** At most 20 printable ASCII characters. */
  identify(): string;
  /** The proxy wants no more answers: what a rate limit still holds ends with 'closed' and is not done. Missing: nothing is held. */
  abandon?(): void;
  /** Tells of every new geometry; returns what ends that. */
  onGeometry(listener: (geometry: BlockGeometry) => void): () => void;
  readonly contract: DeviceContract;
}

/**
 * HAL: a disk on a regular file or block device, by the I/O engine. It moves ranges as they are; short counts are gone
 * on from, so that their cause is learnt. Hole punching is tried: the first EOPNOTSUPP ends the request with
 * 'unsupported', and the provider emulates it from then on.
 */
import { constants } from 'node:os';
import type { AllocateMode, IoEngine } from '../../memory/io-engine.js';
import type { IoVector } from '../../memory/io-vector.js';
import type { BackendDescription } from '../contract.js';
import type { BlockBackend, BlockDone, BlockError, BlockGeometry } from './contract.js';
import { blockError, errnoError } from './errors.js';
import type { ImageFile } from './image-file.js';

/** A read or write on its way; used again and again, so that a request makes no object. */
class Transfer {
  offset = 0;
  data!: IoVector;
  moved = 0;
  done!: BlockDone;
  writes = false;
  readonly onResult: (result: number) => void;

  constructor(owner: FileBackend) {
    this.onResult = (result) => owner.transferred(this, result);
  }
}

export interface FileBackendOptions {
  readonly geometry: BlockGeometry;
  readonly serial?: string | undefined;
  /** Measures the medium anew. */
  readonly measure: () => Promise<BlockGeometry>;
}

export class FileBackend implements BlockBackend {
  geometry: BlockGeometry;
  onGeometry: ((geometry: BlockGeometry) => void) | undefined;
  readonly write?: (offset: number, data: IoVector, done: BlockDone) => void;
  readonly flush?: (done: BlockDone) => void;
  readonly discard?: (offset: number, lengthBytes: number, done: BlockDone) => void;
  readonly writeZeroes?: (offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone) => void;
  readonly identify?: () => string;
  readonly #file: ImageFile;
  readonly #fd: number;
  readonly #engine: IoEngine;
  readonly #measure: () => Promise<BlockGeometry>;
  readonly #free: Transfer[] = [];
  /** What the file system turned out not to have. */
  readonly #lacks = new Set<AllocateMode>();
  /** The first failure of a sync. */
  #lost: BlockError | undefined;

  constructor(file: ImageFile, engine: IoEngine, options: FileBackendOptions) {
    this.#file = file;
    this.#fd = file.fd;
    this.#engine = engine;
    this.geometry = options.geometry;
    this.#measure = options.measure;
    const { serial } = options;
    if (serial !== undefined) this.identify = () => serial;
    if (file.readOnly) return;
    this.write = (offset, data, done) => this.#transfer(true, offset, data, done);
    this.flush = (done) => this.#sync(done);
    this.discard = (offset, lengthBytes, done) => this.#allocate(['punch-hole'], offset, lengthBytes, done);
    this.writeZeroes = (offset, lengthBytes, mayUnmap, done) =>
      this.#allocate(mayUnmap ? ['punch-hole', 'zero-range'] : ['zero-range'], offset, lengthBytes, done);
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#transfer(false, offset, data, done);
  }

  /** The size anew: a file that was extended, a volume that was grown. */
  async refreshGeometry(): Promise<BlockGeometry> {
    this.geometry = await this.#measure();
    return this.geometry;
  }

  describe(): BackendDescription {
    const kind = this.#file.isBlockDevice ? 'block-device' : 'file';
    return { kind, path: this.#file.path, readOnly: this.#file.readOnly, engine: this.#engine.kind };
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** @internal The engine's answer to one part of a transfer. */
  transferred(transfer: Transfer, result: number): void {
    const { data, writes } = transfer;
    if (result > 0) {
      transfer.moved += result;
      if (transfer.moved < data.lengthBytes) {
        this.#go(transfer);
        return;
      }
    }
    const { done, moved, offset } = transfer;
    transfer.data = undefined as unknown as IoVector;
    this.#free.push(transfer);
    if (result > 0) done(undefined);
    else if (result < 0) done(this.#error(result, `${writes ? 'pwritev' : 'preadv'} at ${offset + moved}`));
    else {
      const path = this.#file.path;
      done(
        blockError('io', writes ? `${path} takes no data at ${offset + moved}` : `${path} ends at ${offset + moved}`),
      );
    }
  }

  #transfer(writes: boolean, offset: number, data: IoVector, done: BlockDone): void {
    const transfer = this.#free.pop() ?? new Transfer(this);
    transfer.writes = writes;
    transfer.offset = offset;
    transfer.data = data;
    transfer.moved = 0;
    transfer.done = done;
    this.#go(transfer);
  }

  #go(transfer: Transfer): void {
    const { moved, offset, onResult } = transfer;
    const data = moved === 0 ? transfer.data : transfer.data.slice(moved, transfer.data.lengthBytes - moved);
    if (transfer.writes) this.#engine.write(this.#fd, offset + moved, data, onResult);
    else this.#engine.read(this.#fd, offset + moved, data, onResult);
  }

  /**
   * Once it failed it fails for ever: the kernel has then dropped pages that it will not mention again on this file, and
   * whoever was told, a rebind say, need not be the guest.
   */
  #sync(done: BlockDone): void {
    if (this.#lost) {
      done(this.#lost);
      return;
    }
    this.#engine.sync(this.#fd, (result) => {
      this.#lost ??= this.#error(result, 'fdatasync');
      done(this.#lost);
    });
  }

  /** By the first of `modes` that the file system has. */
  #allocate(modes: readonly AllocateMode[], offset: number, lengthBytes: number, done: BlockDone): void {
    const mode = modes.find((each) => !this.#lacks.has(each));
    if (mode === undefined) {
      done(blockError('unsupported', `${this.#file.path}: fallocate (${modes.join(', ')})`));
      return;
    }
    this.#engine.allocate(this.#fd, mode, offset, lengthBytes, (result) => {
      if (isUnsupported(-result)) {
        this.#lacks.add(mode);
        this.#allocate(modes, offset, lengthBytes, done);
      } else done(this.#error(result, `fallocate (${mode}) of ${lengthBytes} bytes at ${offset}`));
    });
  }

  #error(result: number, what: string): BlockError | undefined {
    if (result >= 0) return undefined;
    // Only fallocate may be unsupported, which is no error: a medium that can't be read or written at all is broken.
    const errno = isUnsupported(-result) ? constants.errno.EIO : -result;
    return errnoError(errno, `${this.#file.path}: ${what}`);
  }
}

function isUnsupported(errno: number): boolean {
  return errno === constants.errno.EOPNOTSUPP || errno === constants.errno.ENOSYS;
}

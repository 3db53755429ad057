/**
 * The backend (HAL) of an open qcow2 image. Requests that overlap are kept apart by the provider, as for every backend;
 * requests to one cluster that has no place yet are ordered here, since the guest does not know of clusters.
 */
import type { IoVector } from '../../../memory/io-vector.js';
import { VmmError } from '../../../base/errors.js';
import type { BackendDescription } from '../../contract.js';
import type { BlockBackend, BlockDone, BlockGeometry } from '../contract.js';
import type { Backing } from './backing.js';
import { Claims } from './claims.js';
import { Committer } from './commit.js';
import { Failure, imageError, toBlockError } from './failure.js';
import type { LoadedImage } from './load.js';
import { Reader } from './reader.js';
import { Writer } from './writer.js';
import { Zeroes } from './zeroes.js';

/** What an image stands on for as long as it is open. */
export interface ImageParts {
  readonly backing: Backing | undefined;
  /** Reads anew what is kept in memory. */
  readonly reload: () => Promise<LoadedImage>;
  /** Gives lock and descriptor back. */
  readonly close: () => Promise<void>;
}

/** An image that is only read: the lower end of a chain, or a disk without write access. */
export class Qcow2Reader implements BlockBackend, Backing {
  protected readonly parts: ImageParts;
  protected loaded: LoadedImage;
  #reader: Reader;
  #geometry: BlockGeometry;
  #closed: Promise<void> | undefined;

  constructor(loaded: LoadedImage, parts: ImageParts) {
    this.parts = parts;
    this.loaded = loaded;
    this.#reader = this.makeReader();
    this.#geometry = geometryOf(loaded);
  }

  get geometry(): BlockGeometry {
    return this.#geometry;
  }

  get sizeBytes(): number {
    return this.#geometry.sizeBytes;
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.#reader.readThen(offset, data, (failure) => done(failure === undefined ? undefined : toBlockError(failure)));
  }

  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    this.read(offset, data, (error) => done(error && new Failure(error.code, error.message, error.cause)));
  }

  /** Another backend has had the image, or what stands behind it, until now. @throws VmmError ERR_DISK_IMAGE */
  async activate(): Promise<void> {
    await this.parts.backing?.activate();
    this.loaded = await this.parts.reload();
    this.#reader = this.makeReader();
    this.#geometry = geometryOf(this.loaded);
    checkSectors(this.loaded.file.path, this.sizeBytes);
  }

  describe(): BackendDescription {
    const { file, header } = this.loaded;
    const { backing } = this.parts;
    return {
      kind: 'qcow2',
      path: file.path,
      clusterBytes: header.clusterBytes,
      ...(backing && { backing: backing.describe() }),
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.shut();
    return this.#closed;
  }

  protected makeReader(): Reader {
    const { file, mapping, users } = this.loaded;
    return new Reader(file, mapping, users, this.parts.backing);
  }

  protected async shut(): Promise<void> {
    try {
      await this.parts.close();
    } finally {
      await this.parts.backing?.close();
    }
  }
}

interface Changers {
  readonly writer: Writer;
  readonly zeroes: Zeroes;
  readonly committer: Committer;
}

export class Qcow2Backend extends Qcow2Reader {
  readonly writesBehind = true;
  #changers: Changers;
  #isAbandoned = false;

  /** @param loaded for writing */
  constructor(loaded: LoadedImage, parts: ImageParts) {
    super(loaded, parts);
    this.#changers = this.#makeChangers();
  }

  write(offset: number, data: IoVector, done: BlockDone): void {
    this.#changers.writer.writeThen(offset, data, (failure) =>
      done(failure === undefined ? undefined : toBlockError(failure)),
    );
  }

  flush(done: BlockDone): void {
    ended(this.#changers.committer.run(), done);
  }

  discard(offset: number, lengthBytes: number, done: BlockDone): void {
    ended(this.#changers.zeroes.discard(offset, lengthBytes), done);
  }

  writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void {
    ended(this.#changers.zeroes.writeZeroes(offset, lengthBytes, mayUnmap), done);
  }

  override async activate(): Promise<void> {
    await super.activate();
    this.#changers = this.#makeChangers();
  }

  /** The image stays as its last commit left it, which is consistent (crash.test.ts). */
  abandon(): void {
    this.#isAbandoned = true;
  }

  /** @throws VmmError ERR_SYSTEM when the last changes could not be made durable */
  async deactivate(): Promise<void> {
    if (this.#isAbandoned) return;
    const { committer } = this.#changers;
    try {
      await committer.run();
      // What the first one gave back is counted down by the second.
      await committer.run();
    } catch (cause) {
      const { message } = toBlockError(cause);
      const { path } = this.loaded.file;
      throw new VmmError('ERR_SYSTEM', `${path}: not everything could be made durable: ${message}`, { cause });
    }
  }

  /** @throws VmmError as deactivate() does; everything is closed all the same. */
  protected override async shut(): Promise<void> {
    let failure: unknown;
    await this.deactivate().catch((error: unknown) => (failure = error));
    await super.shut();
    if (failure !== undefined) throw failure as VmmError;
  }

  #makeChangers(): Changers {
    const { writing, ...rest } = this.loaded;
    if (!writing) throw new TypeError('an image that is only read');
    const all = { ...rest, ...writing };
    const committer = new Committer(all);
    const parts = { ...all, reader: this.makeReader(), committer, claims: new Claims() };
    const writer = new Writer(parts);
    return { writer, committer, zeroes: new Zeroes(parts, writer, this.parts.backing !== undefined) };
  }
}

function geometryOf({ header: { sizeBytes, clusterBytes } }: LoadedImage): BlockGeometry {
  const physicalBlockBytes = Math.min(4096, clusterBytes);
  return { sizeBytes, blockBytes: 512, physicalBlockBytes, optimalIoBytes: clusterBytes };
}

/** @throws VmmError ERR_DISK_IMAGE for a disk that is not made of sectors */
export function checkSectors(path: string, sizeBytes: number): void {
  if (sizeBytes % 512 === 0) return;
  throw imageError(path, 'size', `${sizeBytes} bytes are no multiple of 512`, 'qemu-img resize');
}

function ended(task: Promise<void>, done: BlockDone): void {
  task.then(
    () => done(undefined),
    (error: unknown) => done(toBlockError(error)),
  );
}

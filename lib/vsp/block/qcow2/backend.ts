/**
 * The backend (HAL) of an open qcow2 image. It says `ordersOverlaps: false`: writes in place go to the file side by
 * side, so that the provider keeps overlapping requests apart. Requests to one cluster that has no place yet are
 * ordered here, since the guest does not know of clusters.
 */
import type { IoVector } from '../../../memory/io-vector.js';
import { VmmError } from '../../../base/errors.js';
import type { BackendDescription } from '../../contract.js';
import type { BlockBackend, BlockDone, BlockGeometry } from '../contract.js';
import type { Backing } from './backing.js';
import { Claims } from './claims.js';
import { Committer, type CommitParts } from './commit.js';
import { Failure, toBlockError } from './failure.js';
import type { Header } from './header.js';
import type { ImageFile } from './image-file.js';
import type { Mapping } from './mapping.js';
import type { Generations } from './mutex.js';
import { Reader } from './reader.js';
import { Writer } from './writer.js';
import { Zeroes } from './zeroes.js';

export interface ImageParts {
  readonly file: ImageFile;
  readonly header: Header;
  readonly mapping: Mapping;
  readonly users: Generations;
  readonly backing: Backing | undefined;
  /** Gives lock and descriptor back. */
  readonly closeFile: () => Promise<void>;
}

/** An image that is only read: the lower end of a chain, or a disk without write access. */
export class Qcow2Reader implements BlockBackend, Backing {
  readonly geometry: BlockGeometry;
  readonly ordersOverlaps = false;
  protected readonly reader: Reader;
  readonly #parts: ImageParts;
  #closed: Promise<void> | undefined;

  constructor(parts: ImageParts) {
    const { sizeBytes, clusterBytes } = parts.header;
    this.geometry = {
      sizeBytes,
      blockBytes: 512,
      physicalBlockBytes: Math.min(4096, clusterBytes),
      optimalIoBytes: clusterBytes,
    };
    this.#parts = parts;
    this.reader = new Reader(parts.file, parts.mapping, parts.users, parts.backing);
  }

  get sizeBytes(): number {
    return this.geometry.sizeBytes;
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    this.reader.readThen(offset, data, (failure) => done(failure === undefined ? undefined : toBlockError(failure)));
  }

  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    this.read(offset, data, (error) => done(error && new Failure(error.code, error.message, error.cause)));
  }

  describe(): BackendDescription {
    const { file, header, backing } = this.#parts;
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

  protected async shut(): Promise<void> {
    try {
      await this.#parts.closeFile();
    } finally {
      await this.#parts.backing?.close();
    }
  }
}

export class Qcow2Backend extends Qcow2Reader {
  readonly writesBehind = true;
  readonly #path: string;
  readonly #writer: Writer;
  readonly #zeroes: Zeroes;
  readonly #committer: Committer;

  constructor(parts: ImageParts & CommitParts) {
    super(parts);
    this.#path = parts.file.path;
    this.#committer = new Committer(parts);
    const all = { ...parts, reader: this.reader, committer: this.#committer, claims: new Claims() };
    this.#writer = new Writer(all);
    this.#zeroes = new Zeroes(all, this.#writer, parts.backing !== undefined);
  }

  write(offset: number, data: IoVector, done: BlockDone): void {
    this.#writer.writeThen(offset, data, (failure) => done(failure === undefined ? undefined : toBlockError(failure)));
  }

  flush(done: BlockDone): void {
    ended(this.#committer.run(), done);
  }

  discard(offset: number, lengthBytes: number, done: BlockDone): void {
    ended(this.#zeroes.discard(offset, lengthBytes), done);
  }

  writeZeroes(offset: number, lengthBytes: number, mayUnmap: boolean, done: BlockDone): void {
    ended(this.#zeroes.writeZeroes(offset, lengthBytes, mayUnmap), done);
  }

  /** @throws VmmError ERR_SYSTEM when the last changes could not be made durable; everything is closed all the same. */
  protected override async shut(): Promise<void> {
    let failure: unknown;
    try {
      await this.#committer.run();
      // What the first one gave back is counted down by the second.
      await this.#committer.run();
    } catch (error) {
      failure = error;
    }
    await super.shut();
    if (failure !== undefined) {
      const { message } = toBlockError(failure);
      throw new VmmError('ERR_SYSTEM', `${this.#path}: not everything could be made durable: ${message}`, {
        cause: failure,
      });
    }
  }
}

function ended(task: Promise<void>, done: BlockDone): void {
  task.then(
    () => done(undefined),
    (error: unknown) => done(toBlockError(error)),
  );
}

/**
 * What shows through where an image has nothing of its own: another disk, only read. Here its interface and the raw
 * one; a qcow2 backing file is a whole image again (open.ts).
 */
import type { BackendDescription } from '../../contract.js';
import type { IoVector } from '../../../memory/io-vector.js';
import type { Failure } from './failure.js';
import type { ImageFile } from './image-file.js';

export interface Backing {
  readonly sizeBytes: number;
  /** A range inside `sizeBytes`. */
  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void;
  describe(): BackendDescription;
  close(): Promise<void>;
}

export class RawBacking implements Backing {
  readonly #file: ImageFile;
  readonly #close: () => Promise<void>;

  constructor(file: ImageFile, close: () => Promise<void>) {
    this.#file = file;
    this.#close = close;
  }

  get sizeBytes(): number {
    return this.#file.endBytes;
  }

  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    this.#file.readThen(offset, data, done);
  }

  describe(): BackendDescription {
    return { kind: 'file', path: this.#file.path };
  }

  close(): Promise<void> {
    return this.#close();
  }
}

/**
 * What shows through where an image has nothing of its own: another disk, only read. Here its interface and the raw
 * one; a qcow2 backing file is a whole image again (open.ts).
 */
import type { BackendDescription } from '../../contract.js';
import type { IoVector } from '../../../memory/io-vector.js';
import type { OpenedFile } from './chain-files.js';
import type { Failure } from './failure.js';
import type { ImageFile } from './image-file.js';

export interface Backing {
  readonly sizeBytes: number;
  /** A range inside `sizeBytes`. */
  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void;
  /** Reads anew what is kept of the file in memory: until now another backend wrote to it. */
  activate(): Promise<void>;
  describe(): BackendDescription;
  close(): Promise<void>;
}

export class RawBacking implements Backing {
  readonly #opened: OpenedFile;
  #file: ImageFile;

  static async open(opened: OpenedFile): Promise<RawBacking> {
    return new RawBacking(opened, await opened.view());
  }

  private constructor(opened: OpenedFile, file: ImageFile) {
    this.#opened = opened;
    this.#file = file;
  }

  get sizeBytes(): number {
    return this.#file.endBytes;
  }

  readThen(offset: number, data: IoVector, done: (failure: Failure | undefined) => void): void {
    this.#file.readThen(offset, data, done);
  }

  async activate(): Promise<void> {
    this.#file = await this.#opened.view();
  }

  describe(): BackendDescription {
    return { kind: 'file', path: this.#file.path };
  }

  close(): Promise<void> {
    return this.#opened.close();
  }
}

/**
 * A BlockService without a provider, for units, benches and fuzzers of the block device: a disk in an array, which
 * completes at once, or when the test says so and in the order it says.
 */
import type { IoVector } from '../memory/io-vector.js';
import {
  SECTOR_BYTES,
  type BlockDone,
  type BlockError,
  type BlockErrorCode,
  type BlockGeometry,
  type BlockService,
} from '../vsp/block/contract.js';
import type { DeviceContract } from '../vsp/contract.js';

/** A request that waits for the test. */
export interface HeldRequest {
  readonly name: 'read' | 'write' | 'flush' | 'discard' | 'write-zeroes';
  readonly offset: number;
  readonly lengthBytes: number;
  /** Does it, and completes it; with an error it does nothing. */
  finish(error?: BlockErrorCode): void;
}

export class FakeBlockService implements BlockService {
  readonly id = 'disk0';
  readonly contract: DeviceContract = { class: 'block', functions: {}, backend: { kind: 'fake' }, rebinds: 0 };
  readonly disk: Uint8Array;
  /** Requests wait in `held` instead of completing before the call returns. */
  hold = false;
  readonly held: HeldRequest[] = [];
  /** Names of what was asked for, in order, unless it is switched off. */
  readonly log: string[] = [];
  logging = true;
  readOnly = false;
  serial = 'fake-serial';
  geometry: BlockGeometry;
  #listener: ((geometry: BlockGeometry) => void) | undefined;

  constructor(sizeBytes: number, options: { hold?: boolean; readOnly?: boolean } = {}) {
    this.disk = new Uint8Array(sizeBytes);
    this.geometry = { sizeBytes, blockBytes: SECTOR_BYTES, physicalBlockBytes: 4096, optimalIoBytes: 65536 };
    this.hold = options.hold ?? false;
    this.readOnly = options.readOnly ?? false;
  }

  read(offset: number, data: IoVector, done: BlockDone): void {
    const { lengthBytes } = data;
    this.#enter('read', offset, lengthBytes, done, () =>
      data.copyFrom(this.disk.subarray(offset, offset + lengthBytes)),
    );
  }

  write(offset: number, data: IoVector, done: BlockDone): void {
    const { lengthBytes } = data;
    this.#enter('write', offset, lengthBytes, done, () =>
      data.copyTo(this.disk.subarray(offset, offset + lengthBytes)),
    );
  }

  flush(done: BlockDone): void {
    this.#enter('flush', 0, 0, done, () => undefined);
  }

  discard(offset: number, lengthBytes: number, done: BlockDone): void {
    this.#enter('discard', offset, lengthBytes, done, () => undefined);
  }

  writeZeroes(offset: number, lengthBytes: number, _mayUnmap: boolean, done: BlockDone): void {
    this.#enter('write-zeroes', offset, lengthBytes, done, () => this.disk.fill(0, offset, offset + lengthBytes));
  }

  identify(): string {
    return this.serial;
  }

  onGeometry(listener: (geometry: BlockGeometry) => void): () => void {
    this.#listener = listener;
    return () => (this.#listener = undefined);
  }

  resize(sizeBytes: number): void {
    this.geometry = { ...this.geometry, sizeBytes };
    this.#listener?.(this.geometry);
  }

  #enter(name: HeldRequest['name'], offset: number, lengthBytes: number, done: BlockDone, act: () => void): void {
    if (this.logging) this.log.push(lengthBytes === 0 ? name : `${name} ${offset} ${lengthBytes}`);
    if (offset + lengthBytes > this.geometry.sizeBytes) return done(failure('out-of-range'));
    if (!this.hold) {
      act();
      return done(undefined);
    }
    const finish = (error?: BlockErrorCode) => {
      if (error === undefined) act();
      done(error === undefined ? undefined : failure(error));
    };
    this.held.push({ name, offset, lengthBytes, finish });
  }
}

function failure(code: BlockErrorCode): BlockError {
  return { code, message: `fake: ${code}` };
}

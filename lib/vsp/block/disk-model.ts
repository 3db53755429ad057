/**
 * For tests, shipped: what a disk must hold, sector by sector, and a random load that checks every read against it.
 * Overlapping requests take effect in the order of their arrival, so the model is changed when a request is made, and
 * a read is expected to see the model of that moment, however many requests are in flight.
 *
 * A sector holds a stamp (the number of the request that wrote it, and the sector) repeated, or zeroes. After a
 * discard it may hold either; after a failed change anything.
 */
import { strict as assert } from 'node:assert';
import { HostVector } from '../../memory/io-vector.js';
import { SECTOR_BYTES, type BlockError, type BlockService } from './contract.js';

/** A repeatable source of numbers: mulberry32. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Zeroes for stamp 0, and for negative ones: those are write-zeroes requests. */
function fillStamp(bytes: Uint8Array, stamp: number, sector: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = Math.max(0, stamp);
    words[i + 1] = stamp <= 0 ? 0 : sector;
  }
}

export class DiskModel {
  /** Who wrote each sector last; 0: zeroes. */
  readonly stamps: Float64Array;
  /** It may also be zeroes. */
  readonly discarded: Uint8Array;
  /** Changes that failed. */
  readonly failed = new Set<number>();
  #nextStamp = 1;

  constructor(sectors: number) {
    this.stamps = new Float64Array(sectors);
    this.discarded = new Uint8Array(sectors);
  }

  /** The data of a write that is made now. */
  write(sector: number, count: number): { data: HostVector; stamp: number } {
    const stamp = this.#nextStamp++;
    const bytes = new Uint8Array(count * SECTOR_BYTES);
    for (let i = 0; i < count; i++) {
      fillStamp(bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES), stamp, sector + i);
    }
    this.stamps.fill(stamp, sector, sector + count);
    this.discarded.fill(0, sector, sector + count);
    return { data: new HostVector(bytes), stamp };
  }

  /** Zeroes; the stamp is for `failed`. */
  zero(sector: number, count: number): number {
    const stamp = -this.#nextStamp++;
    this.stamps.fill(stamp, sector, sector + count);
    this.discarded.fill(0, sector, sector + count);
    return stamp;
  }

  discard(sector: number, count: number): void {
    this.discarded.fill(1, sector, sector + count);
  }

  /** What a read made now must give: a check for its data. */
  expectation(sector: number, count: number): (bytes: Uint8Array) => void {
    const stamps = this.stamps.slice(sector, sector + count);
    const discarded = this.discarded.slice(sector, sector + count);
    return (bytes) => {
      const wanted = new Uint8Array(SECTOR_BYTES);
      for (let i = 0; i < count; i++) {
        const stamp = stamps[i]!;
        if (this.failed.has(stamp)) continue;
        const has = bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
        fillStamp(wanted, stamp, sector + i);
        if (equal(has, wanted) || (discarded[i] === 1 && has.every((byte) => byte === 0))) continue;
        const [word, other] = new Uint32Array(has.slice(0, 8).buffer);
        assert.fail(`sector ${sector + i}: wanted stamp ${stamp}, found ${word ?? -1} of sector ${other ?? -1}`);
      }
    };
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

export interface LoadOptions {
  readonly seed: number;
  readonly requests: number;
  /** Requests in flight at once. */
  readonly depth: number;
  /** Greatest length of a request, in sectors. Default 24. */
  readonly maxSectors?: number;
  /** Changes may fail: their sectors are then unknown. Default: an error fails the load. */
  readonly mayFail?: boolean;
  /** Called before each request. */
  readonly onRequest?: (index: number) => void;
}

/** Makes random requests, many at once, until all have ended; rejects at the first wrong byte or unwanted error. */
export async function driveLoad(service: BlockService, model: DiskModel, options: LoadOptions): Promise<void> {
  const { seed, requests, depth, maxSectors = 24, mayFail = false, onRequest } = options;
  const random = randomNumbers(seed);
  const sectors = model.stamps.length;
  let made = 0;
  const one = (): Promise<void> => {
    made++;
    onRequest?.(made);
    const count = 1 + random(Math.min(maxSectors, sectors));
    const sector = random(sectors - count + 1);
    const [offset, length] = [sector * SECTOR_BYTES, count * SECTOR_BYTES];
    const kind = random(100);
    return new Promise((resolve, reject) => {
      const end = (error: BlockError | undefined): void => {
        if (error) reject(new Error(`seed ${seed}: ${error.code}: ${error.message}`));
        else resolve();
      };
      const endChange = (stamp: number, error: BlockError | undefined): void => {
        if (error && mayFail) model.failed.add(stamp);
        end(mayFail ? undefined : error);
      };
      if (kind < 40) {
        const { data, stamp } = model.write(sector, count);
        service.write(offset, data, (error) => endChange(stamp, error));
      } else if (kind < 80) {
        const check = model.expectation(sector, count);
        const data = new HostVector(new Uint8Array(length).fill(0xa5));
        service.read(offset, data, (error) => {
          try {
            if (!error) check(data.bytes);
            end(error);
          } catch (wrong) {
            reject(new Error(`seed ${seed}: ${(wrong as Error).message}`));
          }
        });
      } else if (kind < 88) {
        model.discard(sector, count);
        service.discard(offset, length, end);
      } else if (kind < 96) {
        const stamp = model.zero(sector, count);
        service.writeZeroes(offset, length, random(2) === 1, (error) => endChange(stamp, error));
      } else service.flush(end);
    });
  };
  const worker = async (): Promise<void> => {
    while (made < requests) await one();
  };
  await Promise.all(Array.from({ length: depth }, worker));
}

/** Reads all of the disk and compares. */
export async function checkAll(service: BlockService, model: DiskModel): Promise<void> {
  const PIECE = 512;
  for (let sector = 0; sector < model.stamps.length; sector += PIECE) {
    const count = Math.min(PIECE, model.stamps.length - sector);
    const check = model.expectation(sector, count);
    const data = new HostVector(new Uint8Array(count * SECTOR_BYTES));
    const error = await ended((done) => service.read(sector * SECTOR_BYTES, data, done));
    assert.equal(error, undefined);
    check(data.bytes);
  }
}

/** A call as a promise of its error, which is undefined when it went well. */
export function ended(call: (done: (error: BlockError | undefined) => void) => void): Promise<BlockError | undefined> {
  return new Promise((resolve) => call(resolve));
}

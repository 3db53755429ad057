/**
 * Write-zeroes where the backend has none: zeroes are written, in pieces of bounded size, one at a time, so that a
 * guest that clears a whole disk takes no memory and does not fill the I/O engine. The range lock of the provider
 * keeps others out of the range until the last piece is done.
 */
import { HostVector } from '../../../memory/io-vector.js';
import type { BlockBackend, BlockDone } from '../contract.js';
import { inSequence } from './sequence.js';

/** Unit and greatest size of a piece: a multiple of every block size. */
const PIECE_BYTES = 1024 * 1024;
const ZEROES = new HostVector(new Uint8Array(PIECE_BYTES));

/** A vector of zeroes that nobody writes to, at most 1 MiB. */
export function zeroes(lengthBytes: number): HostVector {
  return ZEROES.slice(0, lengthBytes);
}

/** Zeroes in a range of whole blocks of `target`, which has `write`. */
export function writeZeroesByWriting(target: BlockBackend, offset: number, lengthBytes: number, done: BlockDone): void {
  const end = offset + lengthBytes;
  let at = offset;
  inSequence((_index, next) => {
    if (at >= end) return false;
    // Pieces end at multiples of their size, so that those in between are aligned to whatever the medium likes.
    const length = Math.min(end, (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES) - at;
    const from = at;
    at += length;
    target.write!(from, zeroes(length), next);
    return true;
  }, done);
}

/**
 * Discard where the backend has none. The contract lets reads give old data afterwards, so nothing is done: writing
 * zeroes would cost what a discard is to save, and on a sparse medium fill the very space that it is to give back.
 */
import type { BlockDone } from '../contract.js';

export function discardNothing(done: BlockDone): void {
  done(undefined);
}

/**
 * What keeps a frame beyond the call that it came in: a frame's bytes are its maker's again when `send` or `receive` returns
 * (contract.ts), so whatever waits, in a queue, for a timer or for a turn, waits as a copy that was made here.
 */
import type { NetFrame } from './contract.js';

/** The same frame with bytes of its own, of a Buffer too, whose slice() would share them. */
export function keptFrame(frame: NetFrame): NetFrame {
  return { ...frame, bytes: new Uint8Array(frame.bytes) };
}

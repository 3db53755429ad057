/**
 * The saved state of a 16550: its registers, the receiver FIFO, and what waits on both of the host's sides. The bytes in the
 * vCPU threads' read queue are counted to the FIFO, where they stand as well. serial-16550.ts saves and restores.
 */
import * as v from 'valibot';
import { bytes, integer, stateFormat, u64, u8 } from '../base/saved-state.js';

/** Console input has no bound of its own; more than this nobody has typed. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
const MAX_HELD_BYTES = 64 * 1024;

export const serialFormat = stateFormat({
  type: 'serial-16550',
  version: 1,
  schema: v.strictObject({
    registers: v.strictObject({
      ier: u8,
      lcr: u8,
      mcr: u8,
      scr: u8,
      divisorLow: u8,
      divisorHigh: u8,
      fifosOn: v.boolean(),
      triggerBytes: integer(1, 16),
      overrun: v.boolean(),
      transmitPending: v.boolean(),
      modemLines: u8,
      modemDeltas: u8,
      polling: v.boolean(),
      lineStatusReads: integer(0, 0xffff),
    }),
    fifo: bytes({ maxLength: 4096 }),
    interrupt: v.boolean(),
    receiver: v.strictObject({
      waiting: bytes({ maxLength: MAX_WAITING_BYTES }),
      burstLeft: integer(0, 0xffff),
      burstAgeNs: u64,
      pauseNs: v.optional(u64),
    }),
    held: bytes({ maxLength: MAX_HELD_BYTES }),
    counters: v.strictObject({
      receivedBytes: integer(0, Number.MAX_SAFE_INTEGER),
      sentBytes: integer(0, Number.MAX_SAFE_INTEGER),
      overruns: integer(0, Number.MAX_SAFE_INTEGER),
    }),
  }),
});

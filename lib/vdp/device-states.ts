/**
 * What each virtio device keeps of its own in a snapshot, beside features, queues and what its provider keeps: one format
 * a device. Chains in flight come out of their queues again after a restore, so a request is here only as far as it was
 * done in part.
 */
import * as v from 'valibot';
import { listOf } from '../base/saved-parts.js';
import { bytes, integer, stateFormat, u16, u32, u64 } from '../base/saved-state.js';

const MAX_PORTS = 31;

export const blockState = stateFormat({
  type: 'virtio-block',
  version: 1,
  schema: v.strictObject({
    /** The cache mode as the driver set it (virtio 1.2, 5.2.6.2), of an active device. */
    writeback: v.optional(v.boolean()),
  }),
});

export const netState = stateFormat({
  type: 'virtio-net',
  version: 1,
  schema: v.strictObject({
    /** As the configuration space shows it. */
    mac: bytes({ length: 6 }),
    /** Of the same: link up, announcement wanted. */
    status: integer(0, 3),
    /** As the driver set them last (5.1.6.5.6), of an active device. */
    offloads: v.optional(u64),
  }),
});

const size = v.strictObject({ columns: u16, rows: u16 });

const consoleControl = v.strictObject({
  isReady: v.boolean(),
  ports: listOf(
    v.strictObject({
      isAdded: v.boolean(),
      isReady: v.boolean(),
      add: v.boolean(),
      console: v.boolean(),
      name: v.boolean(),
      toldOpen: v.boolean(),
      resize: v.optional(size),
    }),
    MAX_PORTS,
  ),
});

export const consoleState = stateFormat({
  type: 'virtio-console',
  version: 1,
  schema: v.strictObject({
    columns: u16,
    rows: u16,
    /** Of an active device: its ports, one where MULTIPORT was not accepted. */
    ports: v.optional(
      listOf(
        v.strictObject({
          guestOpen: v.boolean(),
          /** Of the chain in flight in the transmit queue, what the host has taken already. */
          sentBytes: u32,
        }),
        MAX_PORTS,
      ),
    ),
    control: v.optional(consoleControl),
  }),
});

export type ConsoleControlState = v.InferOutput<typeof consoleControl>;

export const entropyState = stateFormat({ type: 'virtio-entropy', version: 1, schema: v.strictObject({}) });

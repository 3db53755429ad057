/**
 * What the providers keep in a snapshot: what a guest was promised of its device (size, serial number, address, MTU), and
 * what it has set there. Not in it: backends and data. A provider over any backend takes such a state over; what that
 * backend lacks is emulated, and what can't be is refused by name.
 */
import * as v from 'valibot';
import { MiB } from '../base/units.js';
import { listOf, text } from '../base/saved-parts.js';
import { bytes, integer, stateFormat, u16, u32 } from '../base/saved-state.js';

const mac = integer(0, 2 ** 48 - 1);
/** As mac-filter.ts keeps at most. */
const MAX_TABLE = 256;
/** What waits for a guest on a console port: what may wait by itself, and one piece that came before it was paused. */
export const MAX_PENDING_CONSOLE_BYTES = 16 * MiB;

export const blockProviderState = stateFormat({
  type: 'block-provider',
  version: 1,
  schema: v.strictObject({
    readOnly: v.boolean(),
    sizeBytes: integer(512, Number.MAX_SAFE_INTEGER),
    physicalBlockBytes: integer(512, 2 ** 31),
    optimalIoBytes: integer(0, Number.MAX_SAFE_INTEGER),
    serial: text(20),
    /** The set of functions, whole from the start. */
    functions: listOf(text(32), 64),
  }),
});

const filterSchema = v.strictObject({
  address: mac,
  modes: v.strictObject({
    promiscuous: v.boolean(),
    allMulticast: v.boolean(),
    allUnicast: v.boolean(),
    noMulticast: v.boolean(),
    noUnicast: v.boolean(),
    noBroadcast: v.boolean(),
  }),
  /** Undefined: more than the table holds. */
  unicast: v.optional(listOf(mac, MAX_TABLE)),
  multicast: v.optional(listOf(mac, MAX_TABLE)),
});
export type MacFilterState = v.InferOutput<typeof filterSchema>;

/** Frames that wait for the guest are not in it: a network may lose them, and they would be old. */
export const netProviderState = stateFormat({
  type: 'net-provider',
  version: 1,
  schema: v.strictObject({
    mac,
    mtuBytes: integer(68, 65521),
    /** As the host's user wants the link. */
    linkUp: v.boolean(),
    functions: listOf(text(32), 64),
    filter: filterSchema,
  }),
});

export const consoleProviderState = stateFormat({
  type: 'console-provider',
  version: 1,
  schema: v.strictObject({
    ports: listOf(
      v.strictObject({
        name: text(63),
        isConsole: v.boolean(),
        size: v.optional(v.strictObject({ columns: u16, rows: u16 })),
        /** From the host, not taken by the guest yet. */
        pending: bytes({ maxLength: MAX_PENDING_CONSOLE_BYTES }),
      }),
      64,
    ),
  }),
});
export type ConsolePortState = ReturnType<typeof consoleProviderState.load>['ports'][number];

export const entropyProviderState = stateFormat({
  type: 'entropy-provider',
  version: 1,
  schema: v.strictObject({
    /** What the rate limit gives at once: whole bytes. */
    tokens: u32,
  }),
});

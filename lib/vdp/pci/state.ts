/**
 * The state of a PCI bus in a snapshot: the bridge's address register and, slot by slot, the functions. What is wired for
 * them (doorbells, message routes) is not in it: it follows from the registers. Read by the files of this folder.
 */
import * as v from 'valibot';
import { CONFIG_SPACE_BYTES, DEVICES_PER_BUS } from '../../abi/pci.js';
import { listOf, savedPart, text } from '../../base/saved-parts.js';
import { bytes, stateFormat, u32 } from '../../base/saved-state.js';

/** One function's configuration space. */
export const configSpaceState = stateFormat({
  type: 'pci-config-space',
  version: 1,
  schema: v.strictObject({
    bytes: bytes({ length: CONFIG_SPACE_BYTES }),
    /** What a reset goes back to; missing before the first write by software. */
    powerOn: v.optional(bytes({ length: CONFIG_SPACE_BYTES })),
  }),
});

/** The table as software wrote it, and vectors that wait behind a mask. Enable and mask bits are in the configuration space. */
export const msixState = stateFormat({
  type: 'pci-msix',
  version: 1,
  schema: v.strictObject({
    table: bytes({ maxLength: 0x800 }),
    pending: listOf(v.boolean(), 128),
  }),
});

export const busState = stateFormat({
  type: 'pci-bus',
  version: 1,
  schema: v.strictObject({
    /** CONFIG_ADDRESS. */
    address: u32,
    /** By slot, the host bridge first. */
    functions: listOf(
      v.strictObject({ name: text(256), config: savedPart, function: v.optional(savedPart) }),
      DEVICES_PER_BUS,
    ),
  }),
});

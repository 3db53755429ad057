/**
 * The state of a machine's lent devices in a snapshot: each provider's part, and the backends that they stood on, for whoever restores
 * it. Descriptions are not believed: of them only a nic's tap or switch, by its checked name, and a passt without forwards are opened
 * again (snapshot/restored-sources.ts); disks have references, console ports overrides.
 */
import * as v from 'valibot';
import { listOf, savedPart, text } from '../base/saved-parts.js';
import { stateFormat } from '../base/saved-state.js';

const MAX_DEVICES = 64;

export const lentDevicesState = stateFormat({
  type: 'lent-devices',
  version: 1,
  schema: v.strictObject({
    devices: listOf(
      v.strictObject({
        /** The provider's. */
        id: text(256),
        state: savedPart,
        /** By `vm.device(id)`: one, or one for each port of a console. As contract.backend shows them; no path in it is opened. */
        backends: listOf(
          v.strictObject({ id: text(256), description: v.record(v.string(), v.unknown()) }),
          MAX_DEVICES,
        ),
      }),
      MAX_DEVICES,
    ),
  }),
});

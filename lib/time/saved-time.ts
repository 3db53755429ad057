/**
 * A guest's time as a part of a snapshot: the tick ledger, the guest's own programming of channel 0, and what the controller
 * has learned. It holds no point in time and no count of the host's clock, so it goes on anywhere. The kernel's own backlog of
 * ticks (KVM_REINJECT_CONTROL) is not in it, nor anywhere else; what it held is owed in the ledger.
 */
import * as v from 'valibot';
import { integer, stateFormat, u8, type SavedPart } from '../base/saved-state.js';
import type { PolicyName } from './configuration.js';
import { MAX_HOST_COUNT } from './counts.js';
import type { PitController } from './pit-controller.js';
import type { PitControllerState } from './pit-status.js';

const decimal = v.pipe(v.string(), v.maxLength(60), v.regex(/^-?\d+$/, 'no whole number'));
const notNegative = v.pipe(decimal, v.regex(/^\d/, 'negative'));
const positive = v.pipe(decimal, v.regex(/^0*[1-9]/, 'not positive'));
const counter = integer(0, Number.MAX_SAFE_INTEGER);
const count = integer(0, MAX_HOST_COUNT);
const mode = integer(0, 7);

const timeFormat = stateFormat({
  type: 'guest-time',
  version: 1,
  schema: v.strictObject({
    policy: v.picklist(['catch-up', 'reinject', 'discard', 'custom']),
    controller: v.strictObject({
      version: v.literal(1),
      ledger: v.strictObject({
        version: v.literal(1),
        expectedUnits: decimal,
        expectedCarry: decimal,
        deliveredUnits: decimal,
        deliveredTicks: decimal,
        forgivenUnits: decimal,
        forgivenTicks: decimal,
        uncertainUnits: decimal,
        timeScale: v.pipe(v.strictTuple([positive, positive]), v.readonly()),
        programmed: v.pipe(v.strictTuple([count, mode]), v.readonly()),
        tickUnits: notNegative,
        counting: v.boolean(),
      }),
      own: v.strictObject({ count, latch: u8, mode }),
      inForce: v.strictObject({ count, latch: u8 }),
      isBegun: v.boolean(),
      heard: v.boolean(),
      slowDownReloads: counter,
      episodes: counter,
      storms: counter,
      reprograms: counter,
    }),
  }),
});

/** What a guest's time is restored from. A policy of the user's can't be saved: 'custom' says that there was one. */
export interface SavedTime {
  readonly policy: PolicyName | 'custom';
  readonly controller: PitControllerState;
}

/** While the machine is paused, and after `controller.settled()`. */
export function saveTime(controller: PitController): SavedPart {
  return timeFormat.save({ policy: controller.policyName, controller: controller.state() });
}

/** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function loadTime(part: SavedPart): SavedTime {
  return timeFormat.load(part);
}

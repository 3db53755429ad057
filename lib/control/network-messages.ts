/**
 * What a process inside the embedded host and the one outside say to each other about another network behind a nic that is lent in.
 * A request has a number (of the change, vsp/net/carried.ts), and is over with its answer, or with the link.
 *
 *     inside  --open-->   outside opens the network, beside the one that the nic is on
 *             <--opened--  it is there: so large are its packets, and so it describes itself
 *             --take-->   outside puts it in the old one's place, and closes that        or  --drop-->  outside closes it; no answer
 *             <--taken--
 *             <--failed-- in place of either answer
 */
import { type Static, Type } from '@sinclair/typebox';
import { type BackendDescription, MAX_CARRIED_CHANGE } from '../vsp/index.js';
import type { Failure } from './failures.js';
import { DeviceParams, NetworkBackend } from './schemas.js';

const strict = { additionalProperties: false } as const;
const Change = Type.Integer({ minimum: 1, maximum: MAX_CARRIED_CHANGE });

/** Of the process inside. */
export const NetworkRequest = Type.Union([
  Type.Object(
    { type: Type.Literal('open'), change: Change, device: DeviceParams.properties.id, backend: NetworkBackend },
    strict,
  ),
  Type.Object({ type: Type.Literal('take'), change: Change }, strict),
  Type.Object({ type: Type.Literal('drop'), change: Change }, strict),
]);
export type NetworkRequest = Static<typeof NetworkRequest>;

/** Of the process outside. */
export type NetworkAnswer =
  | {
      readonly type: 'opened';
      readonly change: number;
      readonly mtuBytes: number;
      /** Missing where it is too long to be of use. */
      readonly around?: BackendDescription;
    }
  | { readonly type: 'taken'; readonly change: number }
  | { readonly type: 'failed'; readonly change: number; readonly failure: Failure };

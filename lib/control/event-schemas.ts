/** What is told of a machine as it happens, a line of JSON each, as schemas. */
import { type Static, Type } from '@sinclair/typebox';
import { choice, End, MachineState } from './schemas.js';

const at = { at: Type.String({ description: "ISO 8601, by the clock of the machine's process" }) };
const kind = <const K extends string>(type: K) => ({ type: Type.Literal(type), ...at });

export const MachineEvent = Type.Union([
  Type.Object({ ...kind('state'), state: MachineState }),
  Type.Object({
    ...kind('agent'),
    agent: Type.String({ description: 'the guest agent has said hello, as what it calls itself' }),
    release: Type.String({ description: "of the guest's kernel" }),
  }),
  Type.Object({
    ...kind('pit'),
    what: choice(['catch-up', 'slow-down', 'nominal', 'storm', 'gave-up', 'stand-down'], 'as of vm.pit.on()'),
    detail: Type.Record(Type.String(), Type.Unknown(), { description: "the event's own members" }),
  }),
  Type.Object({ ...kind('snapshot'), what: Type.Literal('started'), dir: Type.String() }),
  Type.Object({
    ...kind('snapshot'),
    what: Type.Literal('progress'),
    dir: Type.String(),
    bytesDone: Type.Number({ description: 'of guest memory' }),
    bytesTotal: Type.Number(),
  }),
  Type.Object({
    ...kind('snapshot'),
    what: Type.Literal('done'),
    dir: Type.String(),
    id: Type.String(),
    pauseMs: Type.Number({ description: 'for which the guest stood' }),
  }),
  Type.Object({
    ...kind('snapshot'),
    what: Type.Literal('failed'),
    dir: Type.String(),
    code: Type.String(),
    message: Type.String(),
  }),
  Type.Object({ ...kind('rebound'), device: Type.String(), held: Type.Number({ description: 'requests' }) }),
  Type.Object({ ...kind('ended'), ...End.properties }),
  Type.Object({
    ...kind('lost'),
    count: Type.Integer({ description: 'events that are left out, since they came faster than they were read' }),
  }),
]);
export type MachineEvent = Static<typeof MachineEvent>;

/** The schemas that what a page sends is held against, before anything is done for it. Members that are not named are refused. */
import * as v from 'valibot';
import type { PageMessage } from './page/protocol.js';

const MAX_CHANNEL = 2 ** 32 - 1;

/** Whether it is a name of a machine is for whoever looks for it. */
const MachineName = v.pipe(v.string(), v.maxLength(63));
/** A folder in the folder of snapshots: it leads nowhere else, and is not hidden. */
const SnapshotName = v.pipe(v.string(), v.maxLength(128), v.regex(/^[^./\0-\x1f\x7f][^/\0-\x1f\x7f]*$/));
const BeatName = v.picklist(['slow', 'fast']);
const Channel = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_CHANNEL));

const AskSchema = v.variant('what', [
  v.strictObject({ what: v.picklist(['pause', 'resume', 'stop', 'kill']), name: MachineName }),
  v.strictObject({
    what: v.literal('save'),
    name: MachineName,
    snapshot: SnapshotName,
    mode: v.picklist(['live', 'instant', 'paused']),
    parent: v.optional(SnapshotName),
  }),
  v.strictObject({ what: v.literal('restore'), snapshot: SnapshotName, name: MachineName }),
  v.strictObject({ what: v.literal('delete'), snapshot: SnapshotName }),
]);

const Message = v.variant('type', [
  v.strictObject({ type: v.picklist(['watch', 'unwatch']), name: MachineName, beat: BeatName }),
  v.strictObject({ type: v.literal('open-console'), channel: Channel, name: MachineName }),
  v.strictObject({ type: v.literal('close-console'), channel: Channel }),
  v.strictObject({ type: v.literal('ask'), id: v.pipe(v.number(), v.safeInteger()), ask: AskSchema }),
]);

/** The message of a text; undefined for what is none. */
export function readMessage(text: string): PageMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const read = v.safeParse(Message, value);
  return read.success ? read.output : undefined;
}

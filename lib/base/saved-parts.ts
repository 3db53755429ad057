/** States inside of states: the schema of a part that another part keeps, whose own format judges its data. */
import * as v from 'valibot';
import { u32 } from './saved-state.js';

/** A SavedPart. Its data is not looked at here: whoever restores that part holds it against its own schema. */
export const savedPart = v.strictObject({
  type: v.pipe(v.string(), v.maxLength(64)),
  version: u32,
  data: v.unknown(),
});

/** A list of at most `max`. */
export function listOf<S extends v.GenericSchema>(item: S, max: number) {
  return v.pipe(v.array(item), v.maxLength(max));
}

/** A text of at most `max` UTF-16 units. */
export function text(max: number): v.GenericSchema<string> {
  return v.pipe(v.string(), v.maxLength(max));
}

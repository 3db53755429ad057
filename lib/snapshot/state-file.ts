/** The file `state`: the saved parts of a machine, as JSON ([type, version, data] each) in UTF-8. See values.ts. */
import * as v from 'valibot';
import { integer, type SavedPart } from '../base/saved-state.js';
import { damaged, Limit } from './format.js';
import { fromJson, toJson } from './values.js';

const MAX_PARTS = 10_000;
const MAX_VERSION = 1_000_000;

const schema = v.pipe(
  v.array(v.strictTuple([v.pipe(v.string(), v.minLength(1), v.maxLength(200)), integer(1, MAX_VERSION), v.unknown()])),
  v.maxLength(MAX_PARTS),
);

/** @throws VmmError ERR_SNAPSHOT when there is more of it than may be; TypeError for what is no plain value. */
export function encodeState(parts: readonly SavedPart[]): Uint8Array {
  const text = JSON.stringify(parts.map(({ type, version, data }) => [type, version, toJson(data)]));
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length > Limit.STATE_BYTES) throw damaged('state', `${bytes.length} bytes are more than may be saved`);
  return bytes;
}

/** @throws VmmError ERR_SNAPSHOT naming `file` */
export function decodeState(bytes: Uint8Array, file: string): SavedPart[] {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw damaged(file, 'it is no saved state', cause);
  }
  const result = v.safeParse(schema, json);
  if (!result.success) throw damaged(file, `it is no saved state: ${result.issues[0].message}`);
  return result.output.map(([type, version, data]) => ({ type, version, data: fromJson(data) }));
}

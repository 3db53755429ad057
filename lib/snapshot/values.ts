/**
 * Plain values of saved state as JSON: what JSON lacks stands in an object with one key that begins with '$'. An object of
 * the state whose only key begins so is wrapped itself. Depth is bounded on both ways; what a value means is its schema's.
 *
 *   bigint {"$n":"123"}   Uint8Array {"$b":base64}   NaN, Infinity, -0 {"$f":"NaN"}   such an object {"$o":{…}}
 */
import { VmmError } from '../base/errors.js';

const MAX_DEPTH = 64;
const MAX_BIGINT_DIGITS = 100;
const FLOATS = new Map<string, number>([
  ['NaN', NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
  ['-0', -0],
]);

/** What JSON.stringify takes. @throws TypeError for what is no plain value: a mistake of ours. */
export function toJson(value: unknown, depth = 0): unknown {
  if (depth > MAX_DEPTH) throw new TypeError(`saved state is nested more than ${MAX_DEPTH} deep`);
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'bigint':
      return { $n: value.toString() };
    case 'number':
      if (Number.isFinite(value) && !Object.is(value, -0)) return value;
      return { $f: Object.is(value, -0) ? '-0' : String(value) };
    case 'object':
      break;
    case 'undefined':
    case 'function':
    case 'symbol':
      throw new TypeError(`saved state can't hold a ${typeof value}`);
  }
  if (value === null) return null;
  if (value instanceof Uint8Array) {
    return { $b: Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64') };
  }
  if (Array.isArray(value)) return value.map((each) => toJson(each, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null)
    throw new TypeError('saved state can hold plain objects only');
  const made: Record<string, unknown> = {};
  for (const [key, each] of Object.entries(value)) {
    // As a value that JSON.stringify leaves out.
    if (each !== undefined) define(made, key, toJson(each, depth + 1));
  }
  const keys = Object.keys(made);
  return keys.length === 1 && keys[0]!.startsWith('$') ? { $o: made } : made;
}

/** The value that was saved. @throws VmmError ERR_SNAPSHOT */
export function fromJson(json: unknown, depth = 0): unknown {
  if (depth > MAX_DEPTH) throw new VmmError('ERR_SNAPSHOT', `saved state is nested more than ${MAX_DEPTH} deep`);
  if (typeof json !== 'object' || json === null) return json;
  if (Array.isArray(json)) return json.map((each) => fromJson(each, depth + 1));
  const entries = Object.entries(json);
  if (entries.length === 1 && entries[0]![0].startsWith('$')) return fromTagged(entries[0]![0], entries[0]![1], depth);
  return plain(entries, depth);
}

function plain(entries: readonly (readonly [string, unknown])[], depth: number): unknown {
  const made: Record<string, unknown> = {};
  for (const [key, each] of entries) define(made, key, fromJson(each, depth + 1));
  return made;
}

function fromTagged(tag: string, value: unknown, depth: number): unknown {
  if (tag === '$o' && typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return plain(Object.entries(value), depth);
  }
  if (typeof value === 'string') {
    if (tag === '$n' && value.length <= MAX_BIGINT_DIGITS && /^-?\d+$/.test(value)) return BigInt(value);
    if (tag === '$f' && FLOATS.has(value)) return FLOATS.get(value);
    if (tag === '$b' && /^[A-Za-z0-9+/]*={0,2}$/.test(value)) return new Uint8Array(Buffer.from(value, 'base64'));
  }
  throw new VmmError(
    'ERR_SNAPSHOT',
    `saved state with a value of an unknown kind, ${JSON.stringify(tag.slice(0, 20))}`,
  );
}

/** As JSON.parse does it: a key named __proto__ is a key like others. */
function define(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== '__proto__') object[key] = value;
  else Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
}

/**
 * State of a part of a machine, as a snapshot keeps it: plain values (numbers, bigints, texts, Uint8Arrays, lists and
 * objects of these) under the part's type and version. Each part describes its own with a schema; what a snapshot says is
 * held against that before anything of it is used. How parts become bytes is the snapshot room's matter.
 */
import * as v from 'valibot';
import { VmmError } from './errors.js';

export interface SavedPart {
  /** What it is the state of, for example 'serial-16550'. */
  readonly type: string;
  /** Counts up from 1 with each change of the schema. */
  readonly version: number;
  readonly data: unknown;
}

/** A part of a machine that can be saved and made anew from what was saved. */
export interface Savable {
  /** With every vCPU out of the guest, and after its device was prepared. It changes nothing. */
  saveState(): SavedPart;
  /**
   * Takes a saved state over, in a part that was just made and has not been used.
   *
   * @throws VmmError ERR_SNAPSHOT for a state that is not one of this part, ERR_SNAPSHOT_VERSION for an unknown version.
   */
  restoreState(part: SavedPart): void;
}

/** How one type of part is written and read. */
export interface StateFormat<T> {
  readonly type: string;
  readonly version: number;
  save(data: T): SavedPart;
  /** @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
  load(part: SavedPart): T;
}

export interface StateFormatOptions<S extends v.GenericSchema> {
  readonly type: string;
  readonly version: number;
  /** Of the present version; strict objects, bounded numbers. */
  readonly schema: S;
  /** By version: makes data of the next one out of it. Data of older versions goes through all that follow. */
  readonly upgrades?: Readonly<Record<number, (data: unknown) => unknown>>;
}

export function stateFormat<S extends v.GenericSchema>(options: StateFormatOptions<S>): StateFormat<v.InferOutput<S>> {
  const { type, version, schema, upgrades = {} } = options;
  return {
    type,
    version,
    save: (data) => ({ type, version, data }),
    load: (part) => {
      if (part.type !== type) {
        throw new VmmError('ERR_SNAPSHOT', `the state of a ${type} is wanted; the snapshot has one of a ${part.type}`);
      }
      let { data } = part;
      for (let at = part.version; at !== version; at++) {
        const upgrade = at < version ? upgrades[at] : undefined;
        if (upgrade === undefined) throw unknownVersion(part, version);
        data = upgrade(data);
      }
      const result = v.safeParse(schema, data);
      if (result.success) return result.output;
      const issue = result.issues[0];
      const where = v.getDotPath(issue) ?? 'the whole';
      throw new VmmError('ERR_SNAPSHOT', `the state of a ${type} in the snapshot is wrong: ${where}: ${issue.message}`);
    },
  };
}

function unknownVersion(part: SavedPart, known: number): VmmError {
  return new VmmError(
    'ERR_SNAPSHOT_VERSION',
    `the snapshot has the state of a ${part.type} in version ${part.version}; this vivarium reads up to ${known}`,
    { cure: part.version > known ? 'restore it with a newer vivarium' : 'restore it with an older vivarium' },
  );
}

const MAX_U64 = 0xffff_ffff_ffff_ffffn;

/** A whole number between two bounds, for schemas. */
export function integer(min: number, max: number): v.GenericSchema<number> {
  return v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));
}

export const u8 = integer(0, 0xff);
export const u16 = integer(0, 0xffff);
export const u32 = integer(0, 0xffff_ffff);
export const u64 = v.pipe(v.bigint(), v.minValue(0n), v.maxValue(MAX_U64)) as v.GenericSchema<bigint>;
export const i64 = v.pipe(v.bigint(), v.minValue(-(2n ** 63n)), v.maxValue(2n ** 63n - 1n)) as v.GenericSchema<bigint>;

/** Bytes: exactly `length` of them, or at most `maxLength`. */
export function bytes(
  bound: { readonly length: number } | { readonly maxLength: number },
): v.GenericSchema<Uint8Array> {
  return v.pipe(
    v.instance(Uint8Array),
    v.check(
      (value) => ('length' in bound ? value.length === bound.length : value.length <= bound.maxLength),
      'length' in bound ? `${bound.length} bytes are wanted` : `more than ${bound.maxLength} bytes`,
    ),
  );
}

type Rows<F extends Readonly<Record<string, 'u32' | 'u64'>>> = {
  [K in keyof F]: F[K] extends 'u32' ? number : bigint;
}[];

/**
 * At most so many rows of exactly these numbers. Tables of a CPU have hundreds of rows, and whoever restores waits for them: held
 * against a schema field by field they take ten milliseconds the first time.
 */
export function rows<const F extends Readonly<Record<string, 'u32' | 'u64'>>>(
  fields: F,
  maxLength: number,
): v.GenericSchema<Rows<F>> {
  const names = Object.entries(fields);
  const isRow = (row: unknown): boolean => {
    if (typeof row !== 'object' || row === null || Object.keys(row).length !== names.length) return false;
    for (const [name, kind] of names) {
      const value = Object.hasOwn(row, name) ? (row as Record<string, unknown>)[name] : undefined;
      if (kind === 'u32') {
        if (typeof value !== 'number' || value >>> 0 !== value || Object.is(value, -0)) return false;
      } else if (typeof value !== 'bigint' || value < 0n || value > MAX_U64) return false;
    }
    return true;
  };
  return v.custom<Rows<F>>(
    (value) => Array.isArray(value) && value.length <= maxLength && value.every(isRow),
    `at most ${maxLength} rows of ${names.map(([name, kind]) => `${name} (${kind})`).join(', ')} are wanted`,
  );
}

/** The state of a part within that of a larger one; its own schema takes it later. */
export const savedPart: v.GenericSchema<SavedPart> = v.strictObject({
  type: v.pipe(v.string(), v.maxLength(64)),
  version: integer(0, 0xffff),
  data: v.unknown(),
});

/** The states of parts by their names. */
export const savedParts: v.GenericSchema<Record<string, SavedPart>> = v.record(
  v.pipe(v.string(), v.maxLength(64)),
  savedPart,
);

/**
 * Hands each part its own state: `saved` must name exactly those of `parts`.
 *
 * @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION
 */
export function restoreParts(
  whole: string,
  parts: Readonly<Record<string, Savable>>,
  saved: Readonly<Record<string, SavedPart>>,
): void {
  const missing = Object.keys(parts).filter((name) => !Object.hasOwn(saved, name));
  const strange = Object.keys(saved).filter((name) => !Object.hasOwn(parts, name));
  if (missing.length > 0 || strange.length > 0) {
    const words = [...missing.map((name) => `none of ${name}`), ...strange.map((name) => `one of ${name} too many`)];
    throw new VmmError('ERR_SNAPSHOT', `the states of a ${whole} in the snapshot are wrong: ${words.join(', ')}`);
  }
  for (const [name, part] of Object.entries(parts)) part.restoreState(saved[name]!);
}

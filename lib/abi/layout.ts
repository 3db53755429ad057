/**
 * A codec for C structures: fields in order, naturally aligned as the x86-64 ABI lays them out, little endian.
 * The KVM structures (kvm-structs.ts) are written with it; a test holds their sizes against sizeof() in the addon.
 */

/** How one C type is read from and written to bytes. */
export interface Field<T> {
  readonly sizeBytes: number;
  readonly alignment: number;
  get(view: DataView, offset: number): T;
  set(view: DataView, offset: number, value: T): void;
}

export type FieldValue<F> = F extends Field<infer T> ? T : never;

export const u8: Field<number> = {
  sizeBytes: 1,
  alignment: 1,
  get: (view, offset) => view.getUint8(offset),
  set: (view, offset, value) => view.setUint8(offset, value),
};

export const u16: Field<number> = {
  sizeBytes: 2,
  alignment: 2,
  get: (view, offset) => view.getUint16(offset, true),
  set: (view, offset, value) => view.setUint16(offset, value, true),
};

export const u32: Field<number> = {
  sizeBytes: 4,
  alignment: 4,
  get: (view, offset) => view.getUint32(offset, true),
  set: (view, offset, value) => view.setUint32(offset, value, true),
};

export const u64: Field<bigint> = {
  sizeBytes: 8,
  alignment: 8,
  get: (view, offset) => view.getBigUint64(offset, true),
  set: (view, offset, value) => view.setBigUint64(offset, value, true),
};

export const s64: Field<bigint> = {
  sizeBytes: 8,
  alignment: 8,
  get: (view, offset) => view.getBigInt64(offset, true),
  set: (view, offset, value) => view.setBigInt64(offset, value, true),
};

/** A byte array of fixed length; a shorter one is padded with zeros, a longer one refused. */
export function bytes(length: number): Field<Uint8Array> {
  return {
    sizeBytes: length,
    alignment: 1,
    get: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, length).slice(),
    set(view, offset, value) {
      if (value.length > length) throw new RangeError(`${value.length} bytes do not fit into ${length}`);
      const target = new Uint8Array(view.buffer, view.byteOffset + offset, length);
      target.fill(0);
      target.set(value);
    },
  };
}

/** An array of fixed length. */
export function array<T>(element: Field<T>, length: number): Field<T[]> {
  return {
    sizeBytes: element.sizeBytes * length,
    alignment: element.alignment,
    get: (view, offset) => Array.from({ length }, (_, index) => element.get(view, offset + index * element.sizeBytes)),
    set(view, offset, values) {
      if (values.length !== length) throw new RangeError(`${values.length} elements where ${length} are wanted`);
      values.forEach((value, index) => element.set(view, offset + index * element.sizeBytes, value));
    },
  };
}

/** A structure: a field itself, and a codec for whole buffers. */
export interface Struct<T> extends Field<T> {
  readonly name: string;
  /** Offset of each field in bytes. */
  readonly offsets: Readonly<Record<keyof T, number>>;
  /** @throws RangeError when `source` is shorter than the structure. */
  decode(source: Uint8Array): T;
  /** A new buffer of exactly `sizeBytes`; padding is zero. */
  encode(value: T): Uint8Array;
}

/** Lays `fields` out in order. `name` is the C name. */
export function struct<F extends Record<string, Field<never> | Field<unknown>>>(
  name: string,
  fields: F,
): Struct<{ [K in keyof F]: FieldValue<F[K]> }> {
  type Value = { [K in keyof F]: FieldValue<F[K]> };
  const entries: { key: keyof F; field: Field<unknown>; offset: number }[] = [];
  let end = 0;
  let alignment = 1;
  for (const [key, field] of Object.entries(fields) as [keyof F, Field<unknown>][]) {
    const offset = Math.ceil(end / field.alignment) * field.alignment;
    entries.push({ key, field, offset });
    end = offset + field.sizeBytes;
    alignment = Math.max(alignment, field.alignment);
  }
  const sizeBytes = Math.ceil(end / alignment) * alignment;

  const get = (view: DataView, base: number): Value => {
    const value: Partial<Value> = {};
    for (const { key, field, offset } of entries) value[key] = field.get(view, base + offset) as Value[keyof F];
    return value as Value;
  };
  const set = (view: DataView, base: number, value: Value): void => {
    for (const { key, field, offset } of entries) field.set(view, base + offset, value[key]);
  };
  return {
    name,
    sizeBytes,
    alignment,
    offsets: Object.fromEntries(entries.map(({ key, offset }) => [key, offset])) as Record<keyof Value, number>,
    get,
    set,
    decode(source) {
      if (source.length < sizeBytes) throw new RangeError(`${name}: ${source.length} of ${sizeBytes} bytes`);
      return get(new DataView(source.buffer, source.byteOffset, source.length), 0);
    },
    encode(value) {
      const target = new Uint8Array(sizeBytes);
      set(new DataView(target.buffer), 0, value);
      return target;
    },
  };
}

import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { bytes, i64, rows, stateFormat, u16, u64, u8 } from './saved-state.js';

const lamp = stateFormat({
  type: 'lamp',
  version: 3,
  schema: v.strictObject({ level: u8, hours: u64 }),
  upgrades: { 2: (data) => ({ ...(data as { level: number }), hours: 0n }) },
});

describe('a state format', () => {
  it('gives back what was saved', () => {
    expect(lamp.load(lamp.save({ level: 7, hours: 2n ** 63n }))).toEqual({ level: 7, hours: 2n ** 63n });
  });

  it('reads a version that it can bring up', () => {
    expect(lamp.load({ type: 'lamp', version: 2, data: { level: 1 } })).toEqual({ level: 1, hours: 0n });
  });

  it.each([1, 4, 0, -1, 2.5, NaN])('refuses version %s by name', (version) => {
    const load = (): unknown => lamp.load({ type: 'lamp', version, data: { level: 1, hours: 0n } });
    expect(load).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT_VERSION' }));
    expect(load).toThrow(/lamp/);
  });

  it.each([
    ['another type', { type: 'door', version: 3, data: { level: 1, hours: 0n } }, /door/],
    ['a value out of bounds', { type: 'lamp', version: 3, data: { level: 256, hours: 0n } }, /level/],
    ['something more', { type: 'lamp', version: 3, data: { level: 1, hours: 0n, more: 1 } }, /more/],
    ['something less', { type: 'lamp', version: 3, data: { level: 1 } }, /hours/],
    ['nothing', { type: 'lamp', version: 3, data: null }, /the whole/],
  ])('refuses %s', (_what, part, words) => {
    expect(() => lamp.load(part)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT' }));
    expect(() => lamp.load(part)).toThrow(words);
  });
});

describe('bounds', () => {
  it.each([
    ['u16', u16, 0xffff, 0x1_0000],
    ['u64', u64, 2n ** 64n - 1n, 2n ** 64n],
    ['i64', i64, -(2n ** 63n), -(2n ** 63n) - 1n],
    ['exact bytes', bytes({ length: 2 }), new Uint8Array(2), new Uint8Array(3)],
    ['bytes up to a length', bytes({ maxLength: 2 }), new Uint8Array(1), new Uint8Array(3)],
  ])('of %s', (_name, schema, good, bad) => {
    expect(v.safeParse(schema as v.GenericSchema, good).success).toBe(true);
    expect(v.safeParse(schema as v.GenericSchema, bad).success).toBe(false);
  });
});

describe('rows', () => {
  const schema = rows({ index: 'u32', value: 'u64' }, 2);
  const row = { index: 0xffff_ffff, value: 2n ** 64n - 1n };

  it('are lists of exactly the numbers named', () => {
    expect(v.safeParse(schema, [row, { index: 0, value: 0n }])).toMatchObject({ success: true, output: [row, {}] });
    expect(v.safeParse(schema, []).success).toBe(true);
  });

  it.each([
    ['no list', { 0: row, length: 1 }],
    ['too long', [row, row, row]],
    ['a row too large', [{ index: 2 ** 32, value: 0n }]],
    ['a row below zero', [{ index: -1, value: 0n }]],
    ['a row of minus zero', [{ index: -0, value: 0n }]],
    ['a fraction', [{ index: 0.5, value: 0n }]],
    ['no number', [{ index: '1', value: 0n }]],
    ['a value too large', [{ index: 0, value: 2n ** 64n }]],
    ['a value below zero', [{ index: 0, value: -1n }]],
    ['a number where a bigint is wanted', [{ index: 0, value: 0 }]],
    ['a field more', [{ ...row, more: 1 }]],
    ['a field less', [{ index: 0 }]],
    ['a field of another name', [{ index: 0, other: 0n }]],
    ['nothing', [null]],
  ])('refuse %s', (_what, list) => {
    expect(v.safeParse(schema, list).success).toBe(false);
  });
});

import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { bytes, i64, stateFormat, u16, u64, u8 } from './saved-state.js';

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

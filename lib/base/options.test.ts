/** Misspelled options are named with the nearest right one; whole numbers stay within their bounds. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkInteger, checkOptionNames, nearest } from './options.js';

const KNOWN = ['cpus', 'memory', 'boot', 'disks', 'nics', 'debugExit', 'onReset'];

describe('nearest', () => {
  it.each([
    ['cpu', 'cpus'],
    ['mermory', 'memory'],
    ['memroy', 'memory'],
    ['CPUS', 'cpus'],
    ['debugexit', 'debugExit'],
    ['disk', 'disks'],
  ])('finds for %s', (given, wanted) => {
    expect(nearest(given, KNOWN)).toBe(wanted);
  });

  it.each(['', 'x', 'kernel', 'memoryinbytes'])('gives nothing for %j', (given) => {
    expect(nearest(given, KNOWN)).toBeUndefined();
  });

  it('gives nothing when nothing is known', () => {
    expect(nearest('cpus', [])).toBeUndefined();
  });

  it('finds any name again after one edit, unless another is as near', () => {
    fc.assert(
      fc.property(fc.constantFrom(...KNOWN), fc.nat(), fc.constantFrom('insert', 'drop', 'swap'), (name, at, edit) => {
        const index = at % name.length;
        const edited =
          edit === 'insert'
            ? `${name.slice(0, index)}#${name.slice(index)}`
            : edit === 'drop'
              ? name.slice(0, index) + name.slice(index + 1)
              : `${name.slice(0, index)}#${name.slice(index + 1)}`;
        expect(nearest(edited, [name])).toBe(name);
      }),
    );
  });
});

describe('checkOptionNames', () => {
  it('passes what is known, and nothing at all', () => {
    checkOptionNames('Machine.create', { cpus: 1, memory: '1M' }, KNOWN);
    checkOptionNames('Machine.create', {}, KNOWN);
  });

  it('names the caller, the unknown option and the nearest right one', () => {
    expect(() => checkOptionNames('Machine.create', { cpu: 1 }, KNOWN)).toThrow(
      new TypeError("Machine.create: unknown option 'cpu'; did you mean 'cpus'?"),
    );
  });

  it('suggests nothing when nothing is near', () => {
    expect(() => checkOptionNames('Machine.create', { something: 1 }, KNOWN)).toThrow(
      new TypeError("Machine.create: unknown option 'something'"),
    );
  });

  it('is not fooled by names that every object inherits', () => {
    const hostile = JSON.parse('{"__proto__": 1}') as object;
    expect(() => checkOptionNames('f', hostile, KNOWN)).toThrow(TypeError);
    expect(() => checkOptionNames('f', { constructor: 1 }, KNOWN)).toThrow(TypeError);
  });
});

describe('checkInteger', () => {
  it.each([1, 2, 255])('takes %d from 1 to 255', (value) => {
    expect(checkInteger('cpus', value, 1, 255)).toBe(value);
  });

  it.each([0, -1, 256, 1.5, Number.POSITIVE_INFINITY])('refuses %d with a RangeError that names it', (value) => {
    expect(() => checkInteger('cpus', value, 1, 255)).toThrow(RangeError);
    expect(() => checkInteger('cpus', value, 1, 255)).toThrow(/^cpus: /);
  });

  it.each(['1', null, undefined, 1n, Number.NaN, {}, [1]])('refuses %o with a TypeError', (value) => {
    expect(() => checkInteger('cpus', value, 1, 255)).toThrow(TypeError);
  });
});

import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { fromJson, toJson } from './values.js';

const through = (value: unknown): unknown => fromJson(JSON.parse(JSON.stringify(toJson(value))));

describe('values of saved state', () => {
  it('come back as they were', () => {
    const leaf = fc.oneof(
      fc.string(),
      fc.double(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n }),
      fc.uint8Array({ maxLength: 100 }),
    );
    const key = fc.oneof(fc.string(), fc.constantFrom('$n', '$b', '$f', '$o', '__proto__', 'constructor'));
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small' },
        leaf,
        fc.array(tie('tree'), { maxLength: 5 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 5, noNullPrototype: true }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        expect(through(value)).toEqual(value);
      }),
    );
  });

  it('leave out what is undefined, and can be nothing but plain', () => {
    expect(through({ a: undefined, b: 1 })).toEqual({ b: 1 });
    for (const wrong of [undefined, () => 0, Symbol('s'), new Map(), new Date(), [undefined]]) {
      expect(() => toJson(wrong)).toThrow(TypeError);
    }
  });

  it('are refused when they are of an unknown kind, or nested too deep', () => {
    const wrong = [
      { $x: 1 },
      { $n: '1e5' },
      { $n: '9'.repeat(200) },
      { $b: '***' },
      { $f: '1' },
      { $o: [] },
      { $n: 5 },
    ];
    for (const json of wrong) expect(() => fromJson(json)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT' }));
    let deep: unknown = 1;
    for (let level = 0; level < 100; level++) deep = [deep];
    expect(() => fromJson(deep)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT' }));
    expect(() => toJson(deep)).toThrow(TypeError);
  });
});

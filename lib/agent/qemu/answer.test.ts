/** What is an answer, and that what would cost much to find out is none. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  booleanOf,
  bytesOf,
  integerOf,
  MAX_PARTS,
  memberOf,
  parseAnswer,
  QemuProtocolError,
  textOf,
} from './answer.js';

const parse = (text: string): unknown => parseAnswer(Buffer.from(text));

describe('an answer', () => {
  it('returns a value, or an error for people', () => {
    expect(parse('{"return": {"pid": 7}}')).toEqual({ kind: 'return', value: { pid: 7 } });
    expect(parse('{"error": {"class": "GenericError", "desc": "no\\u001b[31m"}, "id": 3}')).toEqual({
      kind: 'error',
      errorClass: 'GenericError',
      description: 'no?[31m',
    });
  });

  it.each([
    ['no JSON', '{"return"', 'a line that is no JSON'],
    ['no object', '[1]', 'an object is due'],
    ['null', 'null', 'an object is due'],
    ['neither', '{}', 'without return and error'],
    ['inherited members', '{"constructor": 1}', 'without return and error'],
    ['an error that is a text', '{"error": "x"}', 'an object is due'],
    ['an error without its words', '{"error": {"class": "a"}}', "'desc' is no text"],
  ])('is not: %s', (_name, text, words) => {
    expect(() => parse(text)).toThrow(QemuProtocolError);
    expect(() => parse(text)).toThrow(words);
  });

  it('has a bounded number of parts, in whatever order, and texts are none', () => {
    const many = 'x,:{['.repeat(MAX_PARTS);
    expect(parse(JSON.stringify({ return: many }))).toEqual({ kind: 'return', value: many });
    for (const text of ['['.repeat(MAX_PARTS + 1), `{"return": [${'[],'.repeat(MAX_PARTS)}[]]}`]) {
      expect(() => parse(text)).toThrow('too many parts');
    }
  });

  it('is read as JSON.parse reads it, wherever quotes and backslashes stand', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.string({ unit: fc.constantFrom('"', '\\', ',', 'a') }), (value, text) => {
        const answer = { return: [value, text] };
        expect(parse(JSON.stringify(answer))).toEqual({
          kind: 'return',
          value: JSON.parse(JSON.stringify(answer.return)) as unknown,
        });
      }),
    );
  });

  it('is never anything but an answer or a broken protocol', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          expect(['return', 'error']).toContain(parseAnswer(bytes).kind);
        } catch (error) {
          expect(error).toBeInstanceOf(QemuProtocolError);
        }
      }),
    );
  });
});

describe('members', () => {
  const members = { pid: 7, half: 0.5, yes: true, text: 'a'.repeat(1000), data: 'aGk=' };

  it('are taken by kind and bound', () => {
    expect(integerOf(members, 'pid', 1, 7)).toBe(7);
    expect(booleanOf(members, 'yes')).toBe(true);
    expect(textOf(members, 'text')).toHaveLength(512);
    expect(Buffer.from(bytesOf(members, 'data', 2)).toString()).toBe('hi');
    expect(bytesOf(members, 'missing', 2)).toHaveLength(0);
    expect(memberOf(members, 'toString')).toBeUndefined();
  });

  it('of another kind, or out of bounds, break the protocol', () => {
    const wrong = [
      () => integerOf(members, 'pid', 8, 9),
      () => integerOf(members, 'half', 0, 1),
      () => integerOf(members, 'text', 0, 1),
      () => booleanOf(members, 'pid'),
      () => textOf(members, 'pid'),
      () => bytesOf(members, 'pid', 9),
      () => bytesOf(members, 'data', 1),
    ];
    for (const take of wrong) expect(take).toThrow(QemuProtocolError);
  });
});

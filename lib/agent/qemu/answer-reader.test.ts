/** Lines out of any pieces, sentinels in between, and bounds that a hostile guest meets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AnswerReader, SENTINEL } from './answer-reader.js';

function read(maxLineBytes: number, pieces: readonly Uint8Array[]) {
  const lines: { text: string; isDelimited: boolean }[] = [];
  let overlong = 0;
  const reader = new AnswerReader(maxLineBytes, {
    onLine: ({ bytes, isDelimited }) => lines.push({ text: Buffer.from(bytes).toString('latin1'), isDelimited }),
    onOverlong: () => overlong++,
  });
  for (const piece of pieces) reader.push(piece);
  return { lines, overlong };
}

/** Cut at these places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
}

const text = (value: string): Uint8Array => Buffer.from(value, 'latin1');

describe('lines', () => {
  it('come whole, with and without a carriage return, and empty ones are none', () => {
    expect(read(100, [text('one\r\n\n\r\ntw'), text('o\nthr')]).lines.map((line) => line.text)).toEqual(['one', 'two']);
  });

  it('behind a sentinel say so, and what was before it is gone', () => {
    expect(read(100, [text('half\xff\xffid\nnext\n')]).lines).toEqual([
      { text: 'id', isDelimited: true },
      { text: 'next', isDelimited: false },
    ]);
  });

  it('over the bound are dropped to their end, and told once', () => {
    const { lines, overlong } = read(4, [text('abcd'), text('e'), text('fgh\nok\n'), text('123456\xffyes\n')]);
    expect(lines).toEqual([
      { text: 'ok', isDelimited: false },
      { text: 'yes', isDelimited: true },
    ]);
    expect(overlong).toBe(2);
  });

  it('are the same in whatever pieces they come', () => {
    const byte = fc.constantFrom(0x61, 0x62, 0x0a, 0x0d, SENTINEL);
    const places = fc.array(fc.nat(500), { maxLength: 30 });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(byte, { maxLength: 200 }), places, (any, few, at) => {
        for (const bytes of [any, Uint8Array.from(few)]) {
          expect(read(6, cut(bytes, at))).toEqual(read(6, [bytes]));
        }
      }),
    );
  });

  it('that are written come back, whatever is in them but their end and the sentinel', () => {
    const line = fc.string({ minLength: 1, maxLength: 60 }).map((each) => JSON.stringify(each));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), fc.array(fc.nat(2000), { maxLength: 20 }), (lines, at) => {
        const bytes = Buffer.from(lines.map((each) => `${each}\n`).join(''));
        const found = read(4096, cut(bytes, at)).lines.map((each) => Buffer.from(each.text, 'latin1').toString());
        expect(found).toEqual(lines);
      }),
    );
  });
});

it('many sentinels cost no look at the rest for each', () => {
  // With such a look this is 10^11 bytes to be read, for the better part of a minute.
  const bytes = new Uint8Array(1024 * 1024).fill(SENTINEL);
  let pieces = 0;
  const indexOf = bytes.indexOf.bind(bytes);
  let looked = 0;
  bytes.indexOf = (value: number, from = 0): number => {
    const found = indexOf(value, from);
    looked += (found < 0 ? bytes.length : found + 1) - from;
    return found;
  };
  const reader = new AnswerReader(10, { onLine: () => pieces++, onOverlong: () => pieces++ });
  reader.push(bytes);
  expect(looked).toBeLessThanOrEqual(3 * bytes.length);
  expect(pieces).toBe(0);
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteQueue } from './byte-queue.js';

describe('ByteQueue', () => {
  it('gives bytes back in order, one by one and in pieces', () => {
    const queue = new ByteQueue();
    const given = Uint8Array.of(1, 2, 3);
    queue.push(given);
    given.fill(9);
    queue.push(new Uint8Array(0));
    queue.push(Uint8Array.of(4, 5));
    expect(queue.length).toBe(5);
    expect(queue.shift()).toBe(1);
    const target = new Uint8Array(3);
    expect(queue.take(target)).toBe(3);
    expect([...target]).toEqual([2, 3, 4]);
    expect([...queue.copy()]).toEqual([5]);
    expect(queue.take(new Uint8Array(8))).toBe(1);
    expect(queue.shift()).toBe(-1);
    expect(queue.length).toBe(0);
  });

  it('keeps the order over thousands of chunks', () => {
    const queue = new ByteQueue();
    for (let index = 0; index < 5000; index++) queue.push(Uint8Array.of(index & 0xff, 0xaa));
    for (let index = 0; index < 5000; index++) {
      expect(queue.shift()).toBe(index & 0xff);
      expect(queue.shift()).toBe(0xaa);
    }
    expect(queue.shift()).toBe(-1);
  });

  it('is a queue', () => {
    const step = fc.oneof(fc.uint8Array({ maxLength: 9 }), fc.nat(12));
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const queue = new ByteQueue();
        const model: number[] = [];
        for (const each of steps) {
          if (typeof each === 'number') {
            const target = new Uint8Array(each);
            expect([...target.subarray(0, queue.take(target))]).toEqual(model.splice(0, each));
          } else {
            queue.push(each);
            model.push(...each);
          }
          expect(queue.length).toBe(model.length);
        }
        queue.clear();
        expect(queue.shift()).toBe(-1);
      }),
    );
  });
});

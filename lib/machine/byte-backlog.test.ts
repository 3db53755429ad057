import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteBacklog } from './byte-backlog.js';

const step = fc.oneof(
  fc.record({ do: fc.constant('append' as const), length: fc.oneof(fc.nat(10), fc.nat(20_000)) }),
  fc.record({ do: fc.constant('take' as const), length: fc.constant(0) }),
  fc.record({ do: fc.constant('keep' as const), length: fc.nat(30_000) }),
  fc.record({ do: fc.constant('look' as const), length: fc.constant(0) }),
);

describe('ByteBacklog', () => {
  it('keeps bytes and their order, like one buffer', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const backlog = new ByteBacklog();
        let model = Buffer.alloc(0);
        let next = 0;
        for (const { do: what, length } of steps) {
          if (what === 'append') {
            const piece = Uint8Array.from({ length }, () => next++ & 0xff);
            backlog.append(piece);
            model = Buffer.concat([model, piece]);
          } else if (what === 'take') {
            expect(Buffer.concat(backlog.take()).equals(model)).toBe(true);
            model = Buffer.alloc(0);
          } else if (what === 'keep') {
            backlog.keepLast(length);
            model = length === 0 ? Buffer.alloc(0) : model.subarray(-length);
          } else {
            expect(Buffer.concat(backlog.pieces()).equals(model)).toBe(true);
          }
          expect(backlog.lengthBytes).toBe(model.length);
        }
      }),
    );
  });

  it('holds one byte after another in few pieces', () => {
    const backlog = new ByteBacklog();
    for (let i = 0; i < 100_000; i++) backlog.append(Uint8Array.of(i & 0xff));
    expect(backlog.pieces().length).toBeLessThan(10);
  });
});

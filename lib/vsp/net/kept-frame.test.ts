import { describe, expect, it } from 'vitest';
import type { NetFrame } from './contract.js';
import { keptFrame } from './kept-frame.js';
import { FakeNetwork } from './testing.js';
import { lend, lendingBackend, lendingTo } from './testing-lent.js';

const frame = (): NetFrame => ({ bytes: Uint8Array.of(1, 2, 3), unfinished: { startAt: 0, offset: 1 } });
const gone = { ...frame(), bytes: Uint8Array.of(0x5a, 0x5a, 0x5a) };

describe('keptFrame', () => {
  it.each([
    ['bytes', Uint8Array.of(1, 2, 3)],
    ['a Buffer', Buffer.from([1, 2, 3])],
  ])('has its own copy of %s', (_, bytes) => {
    const kept = keptFrame({ ...frame(), bytes });
    bytes.fill(9);
    expect(kept).toEqual(frame());
  });
});

describe('frames that are lent', () => {
  it('are whole in the call and gone behind it, and their maker has its own', () => {
    const mine = [frame(), frame()];
    const without = lend(mine, (lent) => {
      expect(lent).toEqual(mine);
      return lent;
    });
    expect(without).toEqual([gone, gone]);
    expect(mine).toEqual([frame(), frame()]);
  });

  it('are so both ways through a backend, and from a fake network', () => {
    const network = new FakeNetwork();
    const kept: NetFrame[][] = [[], []];
    const receive = (frames: readonly NetFrame[]) => {
      kept[0]!.push(...frames);
      kept[1]!.push(...frames.map(keptFrame));
    };
    const backend = lendingBackend(network);
    backend.start({ receive, writable: () => {}, link: () => {} });
    network.host.receive([frame()]);
    expect(kept).toEqual([[gone], [frame()]]);
    const got: NetFrame[] = [];
    const keeper = lendingTo({ send: (frames: readonly NetFrame[]) => got.push(...frames) });
    expect(keeper.send([frame()])).toBe(1);
    expect(got).toEqual([gone]);
    expect(backend.send([frame()])).toBe(true);
    expect(network.sent).toEqual([frame()]);
  });
});

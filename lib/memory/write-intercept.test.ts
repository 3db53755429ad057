import { describe, expect, it } from 'vitest';
import { pieces, requireIntercept } from './write-intercept.js';

describe('runs in pieces', () => {
  it('are the same groups, in lots of no more than that', () => {
    const cut = (...runs: number[]) => [...pieces(Uint32Array.from(runs), 4)].map((lot) => [...lot]);
    expect(cut()).toEqual([]);
    expect(cut(0, 3)).toEqual([[0, 3]]);
    expect(cut(0, 9)).toEqual([
      [0, 4],
      [4, 4],
      [8, 1],
    ]);
    expect(cut(0, 1, 5, 5, 20, 1)).toEqual([
      [0, 1, 5, 3],
      [8, 2, 20, 1],
    ]);
  });
});

describe("the mode 'instant'", () => {
  it('is refused by the name of what is lacking, and offers live, also without any userfaultfd', () => {
    const lack = { name: 'userfaultfd (open: EPERM)', cure: 'run as root' };
    expect(() => requireIntercept('memfd', { instant: lack, lazy: lack, poison: false })).toThrow(
      expect.objectContaining({
        code: 'ERR_SNAPSHOT_REFUSED',
        message: expect.stringContaining(lack.name) as string,
        cure: expect.stringContaining("'live'") as string,
      }) as Error,
    );
    requireIntercept('memfd', { instant: undefined, lazy: lack, poison: false });
  });
});

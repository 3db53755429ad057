import { describe, expect, it } from 'vitest';
import { CLOCK_MODES, clockPlan, gapNs } from './clock-mode.js';

describe('the clocks of a restored guest', () => {
  it.each([
    ['freeze', 0n, 'forgiven'],
    ['step', 9n, 'forgiven'],
    ['catch-up', 9n, 'owed'],
  ] as const)('%s: go on by one gap for all', (mode, gap, ticks) => {
    const plan = clockPlan(mode);
    expect(plan.ticks).toBe(ticks);
    expect(gapNs(plan, 9n)).toBe(gap);
  });

  it('have three modes', () => {
    expect(CLOCK_MODES).toEqual(['freeze', 'step', 'catch-up']);
  });
});
